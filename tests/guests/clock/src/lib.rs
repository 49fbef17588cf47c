//! Reads every clock and random source WASI has into headers, so that a test can show that a replay is exact.

use std::hash::{BuildHasher, RandomState};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use sluicegate_plugin::{Draft, Failure, Message, Plugin, Reason, Transform};

#[derive(Deserialize)]
struct Config {}

struct Clock {
    configured: Instant,
}

impl Plugin for Clock {
    type Config = Config;

    fn config_schema() -> String {
        r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","additionalProperties":false}"#
            .to_owned()
    }

    fn configure(Config {}: Config) -> Result<Self, Vec<Reason>> {
        Ok(Self { configured: Instant::now() })
    }
}

impl Transform for Clock {
    fn transform(&self, message: &Message) -> Result<Vec<Draft>, Failure> {
        let draft = message.draft();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let elapsed = Instant::now().saturating_duration_since(self.configured).as_nanos();
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).map_err(|error| Failure::reject("no_random", error.to_string()))?;
        draft.set_header("now-ns", now.to_string().as_bytes());
        draft.set_header("since-configured-ns", elapsed.to_string().as_bytes());
        draft.set_header("random", &random);
        draft.set_header("hash-seed", RandomState::new().hash_one(1).to_string().as_bytes());
        Ok(vec![draft])
    }
}

sluicegate_plugin::export!(Clock: Transform);
