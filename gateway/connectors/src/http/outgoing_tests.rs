use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn config(hosts: &[&str]) -> OutgoingConfig {
    OutgoingConfig {
        hosts: hosts.iter().map(|host| AllowedHost::parse(host).expect("a host")).collect(),
        allow_private: true,
        timeout: Duration::from_millis(500),
        max_response_bytes: 1_000,
        per_second: None,
    }
}

fn get(url: impl Into<String>) -> OutgoingRequest {
    OutgoingRequest { method: "GET", url: url.into(), headers: Vec::new(), body: Bytes::new(), timeout: None }
}

/// Answers every connection with these bytes, once it was asked, and says what was asked.
async fn server(answer: Vec<u8>) -> (String, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (asked, requests) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = vec![0; 4_096];
            let length = connection.read(&mut request).await.unwrap_or_default();
            if asked.send(String::from_utf8_lossy(&request[..length]).into_owned()).await.is_err() {
                return;
            }
            // Without an answer the connection stays open and silent.
            if answer.is_empty() {
                std::future::pending::<()>().await;
            }
            if connection.write_all(&answer).await.is_err() {
                return;
            }
        }
    });
    (url, requests)
}

fn response(status: &str, body_bytes: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {body_bytes}\r\nX-Seen: Yes\r\nlocation: /else\r\n\r\n");
    [head.into_bytes(), vec![b'x'; body_bytes]].concat()
}

async fn answer(config: OutgoingConfig, request: OutgoingRequest) -> Result<OutgoingResponse, OutgoingError> {
    Outgoing::new(config).expect("a client").send(request).await
}

#[test]
fn hosts_are_read_and_matched_exactly() {
    let allows =
        |host: &str, url: &str| AllowedHost::parse(host).expect("a host").allows(&Url::parse(url).expect("a URL"));
    assert!(allows("api.example.org", "https://API.example.org/v1?x=1"));
    assert!(allows("http://localhost:9000", "http://localhost:9000/"));
    assert!(allows("*.example.org", "https://a.b.example.org/"));
    for (host, url) in [
        ("api.example.org", "http://api.example.org/"),
        ("api.example.org", "https://api.example.org:8443/"),
        ("api.example.org", "https://api.example.org.evil.test/"),
        ("api.example.org", "https://evil-api.example.org/"),
        ("*.example.org", "https://example.org/"),
        ("*.example.org", "https://evilexample.org/"),
        ("127.0.0.1", "https://localhost/"),
    ] {
        assert!(!allows(host, url), "{host} {url}");
    }
    for wrong in ["", "ftp://a", "a/b", "https://a/", "u:p@a", "*", "a.*.b", "*.10.0.0.1", "a?b", "a b"] {
        assert!(AllowedHost::parse(wrong).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn a_listed_host_is_asked_and_its_redirect_is_an_answer() {
    let (url, mut requests) = server(response("302 Found", 3)).await;
    let request = OutgoingRequest { headers: vec![("X-Key".to_owned(), "k".into())], ..get(format!("{url}/a?b=c")) };
    let got = answer(config(&[&url]), request).await.expect("a response");
    assert_eq!((got.status, &got.body[..]), (302, &b"xxx"[..]));
    assert!(got.headers.contains(&("x-seen".to_owned(), "Yes".into())));
    let asked = requests.recv().await.expect("asked");
    assert!(asked.starts_with("GET /a?b=c HTTP/1.1\r\n") && asked.contains("x-key: k\r\n"), "{asked}");
    assert!(requests.try_recv().is_err(), "asked once only");
}

#[tokio::test]
async fn unlisted_hosts_and_private_addresses_are_not_asked() {
    let (url, mut requests) = server(response("200 OK", 0)).await;
    let port = Url::parse(&url).expect("a URL").port().expect("a port");
    let by_name = format!("http://localhost:{port}");
    let refused = |result| matches!(result, Err(OutgoingError::Refused(_)));
    assert!(refused(answer(config(&["api.example.org"]), get(&url)).await));
    let public_only = OutgoingConfig { allow_private: false, ..config(&[&url, &by_name]) };
    assert!(refused(answer(public_only.clone(), get(&url)).await));
    let resolved = answer(public_only, get(&by_name)).await;
    let Err(OutgoingError::Refused(text)) = resolved else { panic!("{resolved:?}") };
    assert!(text.contains("`localhost`") && !text.contains("127.0.0.1"), "{text}");
    assert!(requests.try_recv().is_err(), "nobody was asked");
    assert!(answer(config(&[&by_name]), get(&by_name)).await.is_ok(), "where it is allowed");
}

#[tokio::test]
async fn a_server_that_does_not_answer_and_one_that_says_too_much() {
    let (silent, _requests) = server(Vec::new()).await;
    let request = OutgoingRequest { timeout: Some(Duration::from_millis(50)), ..get(&silent) };
    assert_eq!(answer(config(&[&silent]), request).await, Err(OutgoingError::Timeout));
    assert_eq!(answer(config(&[&silent]), get(&silent)).await, Err(OutgoingError::Timeout));
    let (loud, _requests) = server(response("200 OK", 1_001)).await;
    assert_eq!(answer(config(&[&loud]), get(&loud)).await, Err(OutgoingError::TooLarge));
    // Without a length it is found out while it is read.
    let endless = [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec(), vec![b'x'; 5_000]].concat();
    let (endless, _requests) = server(endless).await;
    assert_eq!(answer(config(&[&endless]), get(&endless)).await, Err(OutgoingError::TooLarge));
}

#[tokio::test]
async fn what_is_the_gateways_to_say_is_refused() {
    for name in ["Host", "content-length", "Transfer-Encoding", "proxy-authorization", "a b", "x\r\ny"] {
        let request = OutgoingRequest { headers: vec![(name.to_owned(), "1".into())], ..get("https://a.test/") };
        assert!(matches!(answer(config(&["a.test"]), request).await, Err(OutgoingError::Invalid(_))), "{name}");
    }
    for url in ["", "/relative", "https://user:pass@a.test/"] {
        assert!(matches!(answer(config(&["a.test"]), get(url)).await, Err(OutgoingError::Invalid(_))), "{url}");
    }
}

#[test]
fn the_rate_holds_and_comes_back() {
    let outgoing = Outgoing::new(OutgoingConfig { per_second: Some(2.0), ..config(&["a.test"]) }).expect("a client");
    let start = Instant::now();
    assert!(outgoing.take_token(start).is_ok() && outgoing.take_token(start).is_ok());
    assert_eq!(outgoing.take_token(start), Err(OutgoingError::Rate(Duration::from_millis(500))));
    assert!(outgoing.take_token(start + Duration::from_millis(600)).is_ok());
    assert!(outgoing.take_token(start + Duration::from_millis(700)).is_err());
}
