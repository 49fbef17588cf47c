//! A tenant's router for payments: small ones go fast, large ones are reviewed in the order of their account, those
//! from blocked countries are rejected.

use schemars::JsonSchema;
use serde::Deserialize;
use sluicegate_plugin::{Destination, Failure, Message, Plugin, Reason, Router, log, schema_of};

/// What the pipeline configures.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Payments of at least this amount are reviewed; more than 0.
    threshold: f64,
    /// Target of small payments.
    fast: String,
    /// Target of large payments.
    review: String,
    /// Two-letter codes of countries whose payments are rejected.
    #[serde(default)]
    blocked_countries: Vec<String>,
}

/// The router, made once from its configuration.
pub struct TenantRouter(Config);

impl Plugin for TenantRouter {
    type Config = Config;

    fn config_schema() -> String {
        schema_of::<Config>()
    }

    fn configure(config: Config) -> Result<Self, Vec<Reason>> {
        let mut mistakes = Vec::new();
        if config.threshold <= 0.0 {
            mistakes.push(Reason::new("invalid_config", "/threshold: must be more than 0"));
        }
        for (index, country) in config.blocked_countries.iter().enumerate() {
            if country.len() != 2 || !country.bytes().all(|byte| byte.is_ascii_uppercase()) {
                mistakes.push(Reason::new(
                    "invalid_config",
                    format!("/blocked_countries/{index}: must be two capital letters"),
                ));
            }
        }
        if mistakes.is_empty() { Ok(Self(config)) } else { Err(mistakes) }
    }
}

impl Router for TenantRouter {
    fn route(&self, message: &Message) -> Result<Vec<Destination>, Failure> {
        let Some(amount) = message.value::<f64>("/amount")? else {
            return Err(Failure::reject("no_amount", "the payment has no amount"));
        };
        let country = message.value::<String>("/country")?.unwrap_or_default();
        if self.0.blocked_countries.contains(&country) {
            return Err(Failure::reject("blocked_country", format!("payments from {country} are not taken")));
        }
        if amount < self.0.threshold {
            return Ok(vec![Destination::to(&self.0.fast)]);
        }
        log::info(format!("a payment of {amount} goes to review"));
        let review = Destination::to(&self.0.review);
        Ok(vec![match message.value::<String>("/account")? {
            Some(account) => review.key(account),
            None => review,
        }])
    }
}

sluicegate_plugin::export!(TenantRouter: Router);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sluicegate_plugin::MessageBuilder;

    use super::*;

    fn config(threshold: f64, blocked: &[&str]) -> Config {
        let blocked_countries = blocked.iter().map(ToString::to_string).collect();
        Config { threshold, fast: "fast".to_owned(), review: "review".to_owned(), blocked_countries }
    }

    fn route(body: Value) -> Result<Vec<Destination>, Failure> {
        let router = TenantRouter::configure(config(1000.0, &["XX"])).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        router.route(&MessageBuilder::new().json(&body).build())
    }

    #[test]
    fn small_payments_go_fast_and_large_ones_to_review_by_account() {
        assert_eq!(route(json!({ "amount": 999.99 })), Ok(vec![Destination::to("fast")]));
        assert_eq!(route(json!({ "amount": 1000 })), Ok(vec![Destination::to("review")]));
        let by_account = route(json!({ "amount": 1000, "account": "a-7" }));
        assert_eq!(by_account, Ok(vec![Destination::to("review").key("a-7")]));
    }

    #[test]
    fn what_cannot_be_routed_says_why() {
        let code = |body| route(body).unwrap_err().reason().code.clone();
        assert_eq!(code(json!({ "country": "DE" })), "no_amount");
        assert_eq!(code(json!({ "amount": 1, "country": "XX" })), "blocked_country");
    }

    #[test]
    fn all_mistakes_of_a_configuration_are_told_at_once() {
        let mistakes = TenantRouter::configure(config(0.0, &["xx", "DE", "Germany"])).err().unwrap_or_default();
        let texts: Vec<&str> = mistakes.iter().map(|mistake| mistake.text.as_str()).collect();
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert!(
            texts[0].starts_with("/threshold")
                && texts[1].starts_with("/blocked_countries/0")
                && texts[2].starts_with("/blocked_countries/2")
        );
    }
}
