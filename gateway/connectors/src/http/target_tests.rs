use super::super::signature::{DEFAULT_TOLERANCE, verify};
use super::*;

async fn webhook(json: serde_json::Value) -> Webhook {
    let config: TargetConfig = serde_json::from_value(json).unwrap();
    assert_eq!(config.problems(), []);
    Webhook::new(&config, client::build(client::Settings::new(Duration::from_secs(1), 1)).await.unwrap()).unwrap()
}

fn message() -> Message {
    let mut message = Message::new("/shop", "order.created", "{\"a\": 1}");
    message.id = "o-1".to_owned();
    message.content_type = Some("application/json".to_owned());
    message.headers.append("tenant", "acme");
    message.headers.append("X-Odd-Name", "1");
    message.trace_parent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned());
    message
}

#[tokio::test]
async fn binary_is_the_default_and_carries_everything_in_headers() {
    let webhook = webhook(serde_json::json!({ "url": "http://localhost/" })).await;
    let (headers, body) = webhook.request(&message());
    assert_eq!(body, "{\"a\": 1}");
    for (name, value) in [("ce-id", "o-1"), ("ce-type", "order.created"), ("ce-tenant", "acme")] {
        assert_eq!(headers[name], value);
    }
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["webhook-id"], "o-1");
    assert!(headers.contains_key("traceparent"));
    assert!(!headers.contains_key("webhook-signature") && !headers.contains_key("x-odd-name"));
}

#[tokio::test]
async fn structured_is_one_event_and_raw_has_the_messages_headers() {
    let structured = webhook(serde_json::json!({ "url": "http://localhost/", "format": "structured" })).await;
    let (headers, body) = structured.request(&message());
    assert_eq!(headers["content-type"], "application/cloudevents+json; charset=utf-8");
    assert_eq!(cloudevents::decode(&body).unwrap().id, "o-1");
    let raw = webhook(serde_json::json!({ "url": "http://localhost/", "format": "raw" })).await;
    let (headers, body) = raw.request(&message());
    assert_eq!((body.as_ref(), &headers["x-odd-name"]), (&b"{\"a\": 1}"[..], &HeaderValue::from_static("1")));
    assert!(!headers.contains_key("ce-id"));
}

#[tokio::test]
async fn a_signed_request_verifies_and_keeps_its_id_on_every_attempt() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let webhook = webhook(serde_json::json!({ "url": "http://localhost/", "signing_secret": secret })).await;
    let text = |headers: &HeaderMap, name: &str| headers[name].to_str().unwrap().to_owned();
    let (headers, body) = webhook.request(&message());
    let (id, timestamp) = (text(&headers, "webhook-id"), text(&headers, "webhook-timestamp"));
    let signature = text(&headers, "webhook-signature");
    let now_secs = now_ms() / 1_000;
    assert_eq!(verify(secret, &id, &timestamp, &body, &signature, now_secs, DEFAULT_TOLERANCE), Ok(()));
    let mut again = message();
    again.attempt = 2;
    assert_eq!(text(&webhook.request(&again).0, "webhook-id"), id);
}

#[tokio::test]
async fn configured_headers_win_and_are_sensitive() {
    let webhook = webhook(serde_json::json!({
        "url": "http://localhost/", "format": "raw", "headers": { "Authorization": "Bearer hunter2", "x-odd-name": "mine" },
    }))
    .await;
    let (headers, _) = webhook.request(&message());
    assert_eq!(headers["x-odd-name"], "mine");
    assert!(!format!("{headers:?}").contains("hunter2"));
}

#[tokio::test]
async fn an_excerpt_is_one_short_line_without_secrets() {
    let webhook = webhook(serde_json::json!({
        "url": "http://user:hunter2@localhost/?token=hunter3", "signing_secret": "hunter4",
        "headers": { "authorization": "Bearer hunter5" },
    }))
    .await;
    let shown = webhook.excerpt(b"got hunter2,\nhunter3, hunter4 and hunter5\x1b[31m \xff");
    assert_eq!(shown, "got ***, ***, *** and *** [31m \u{fffd}");
    assert!(webhook.excerpt("€".repeat(1_000).as_bytes()).len() <= MAX_EXCERPT_BYTES);
}

#[tokio::test]
async fn certificates_to_trust_have_to_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let settings = || client::Settings { ca_file: Some(&file), ..client::Settings::new(Duration::from_secs(1), 1) };
    let build = async || client::build(settings()).await.map(|_| ()).unwrap_err();
    assert!(build().await.text.contains("check `tls: ca_file`"));
    std::fs::write(&file, "not a certificate").unwrap();
    let failure = build().await;
    assert!(failure.text.contains("no certificate") && failure.text.contains("ca.pem"), "{failure}");
}
