//! Adds what another service knows: asks it for the customer of an order over HTTP, with a secret, and puts the answer into
//! the message.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use sluicegate_plugin::http::Request;
use sluicegate_plugin::{Draft, Failure, Message, Plugin, Reason, Transform, metrics, schema_of, secrets};

/// What the pipeline configures.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where customers are asked for; the customer's id comes after it.
    url: String,
}

/// The transform, made once from its configuration.
pub struct Enrich(Config);

impl Plugin for Enrich {
    type Config = Config;

    fn config_schema() -> String {
        schema_of::<Config>()
    }

    fn configure(config: Config) -> Result<Self, Vec<Reason>> {
        if config.url.ends_with('/') {
            Ok(Self(config))
        } else {
            Err(vec![Reason::new("invalid_config", "/url: must end with a slash; the customer's id comes after it")])
        }
    }
}

impl Transform for Enrich {
    fn transform(&self, message: &Message) -> Result<Vec<Draft>, Failure> {
        let Some(customer) = message.value::<String>("/customer/id")? else {
            return Err(Failure::reject("no_customer", "the order has no customer"));
        };
        // What comes from a message must not choose another path.
        if customer.is_empty() || !customer.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(Failure::reject("bad_customer", "the customer's id has other than letters, digits and `-`"));
        }
        let token = secrets::get("api")?;
        let request =
            Request::get(format!("{}{customer}", self.0.url)).header("authorization", format!("Bearer {token}"));
        let response = request.send()?;
        let outcome = match response.status {
            200 => "found",
            404 => "unknown",
            _ => "failed",
        };
        metrics::count("lookups_total", &[("outcome", outcome)], 1).ok();
        match response.status {
            200 => {}
            404 => return Ok(vec![message.draft()]),
            status => return Err(Failure::retry("lookup_failed", format!("the customers' service answers {status}"))),
        }
        let known: Value = response.json()?;
        let draft = message.draft();
        draft.set_json("/customer/known", &known.to_string()).map_err(|text| Failure::reject("not_enriched", text))?;
        Ok(vec![draft])
    }
}

sluicegate_plugin::export!(Enrich: Transform);

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sluicegate_plugin::{MessageBuilder, http};

    use super::*;

    const URL: &str = "https://customers.test/v1/c-7";

    fn enriched(customer: &Value) -> Result<Value, Failure> {
        secrets::double::grant("api", "t0ken");
        let plugin = Enrich(Config { url: "https://customers.test/v1/".to_owned() });
        let message = MessageBuilder::new().json(&json!({ "customer": { "id": customer } })).build();
        let drafts = plugin.transform(&message)?;
        let body = drafts[0].body();
        Ok(serde_json::from_slice(&body).expect("JSON"))
    }

    #[test]
    fn what_is_known_is_added() {
        http::double::answer(URL, http::response(200, br#"{"tier":"gold"}"#));
        let body = enriched(&json!("c-7")).expect("enriched");
        assert_eq!(body, json!({ "customer": { "id": "c-7", "known": { "tier": "gold" } } }));
        let asked = http::double::requests();
        assert_eq!(asked[0].headers, [("authorization".to_owned(), b"Bearer t0ken".to_vec())]);
    }

    #[test]
    fn an_unknown_customer_stays_as_it_is() {
        http::double::answer(URL, http::response(404, b""));
        assert_eq!(enriched(&json!("c-7")), Ok(json!({ "customer": { "id": "c-7" } })));
    }

    #[test]
    fn a_service_in_trouble_is_asked_again_later() {
        http::double::answer(URL, http::response(503, b""));
        assert!(matches!(enriched(&json!("c-7")), Err(Failure::Retry(_))));
        http::double::fail(URL, http::Error::Timeout);
        assert!(matches!(enriched(&json!("c-7")), Err(Failure::Retry(_))));
        http::double::answer(URL, http::response(200, b"<html>"));
        assert!(matches!(enriched(&json!("c-7")), Err(Failure::Reject(_))));
    }

    #[test]
    fn a_message_cannot_choose_the_path() {
        for customer in ["../admin", "c/7", "", "c?x", "%2e"] {
            let failure = enriched(&json!(customer)).expect_err("refused");
            assert_eq!(failure.reason().code, "bad_customer");
        }
        assert!(http::double::requests().is_empty(), "nobody was asked");
    }
}
