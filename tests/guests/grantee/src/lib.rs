//! Uses its grants as the message says, and answers what came of it: the body is a list of what to do (or an object with
//! `do` and how often to `repeat` it), and the draft's body a list of what each was answered.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate_plugin::http::Request;
use sluicegate_plugin::{Draft, Failure, Message, Plugin, Reason, Transform, http, metrics, secrets, state};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What to do in `configure`, which then refuses with what it was answered.
    #[serde(default)]
    in_configure: Vec<Act>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Act {
    Get(String),
    /// Key, value, milliseconds to live.
    Set(String, String, Option<u64>),
    /// Key, length of the value.
    SetBytes(String, usize),
    Delete(String),
    /// Key, expected, value.
    CompareAndSet(String, Option<String>, Option<String>),
    Increment(String, i64, Option<u64>),
    /// URL, milliseconds.
    Fetch(String, Option<u64>),
    /// URL, length of the body, headers.
    Post(String, usize, Vec<(String, String)>),
    Secret(String),
    /// Name, labels, value.
    Count(String, Vec<(String, String)>, u64),
    Gauge(String, f64),
    /// Turns a loop.
    Spin(u64),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Work {
    Once(Vec<Act>),
    Often {
        #[serde(rename = "do")]
        acts: Vec<Act>,
        repeat: usize,
    },
}

struct Grantee;

impl Plugin for Grantee {
    type Config = Config;

    fn config_schema() -> String {
        r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object"}"#.to_owned()
    }

    fn configure(config: Config) -> Result<Self, Vec<Reason>> {
        let answers: Vec<Reason> =
            config.in_configure.iter().map(|act| Reason::new("answered", answer(act).to_string())).collect();
        if answers.is_empty() { Ok(Self) } else { Err(answers) }
    }
}

impl Transform for Grantee {
    fn transform(&self, message: &Message) -> Result<Vec<Draft>, Failure> {
        let Some(work) = message.value::<Work>("")? else {
            return Err(Failure::reject("no_work", "the body is no JSON"));
        };
        let (acts, repeat) = match work {
            Work::Once(acts) => (acts, 1),
            Work::Often { acts, repeat } => (acts, repeat),
        };
        let answers: Vec<Value> = (0..repeat).flat_map(|_| acts.iter().map(answer)).collect();
        let draft = message.draft();
        draft.set_body(Value::from(answers).to_string().as_bytes());
        Ok(vec![draft])
    }
}

fn answer(act: &Act) -> Value {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    match act {
        Act::Get(key) => told(state::get(key).map(|value| json!(value.map(text)))),
        Act::Set(key, value, ttl) => {
            told(state::set(key, value.as_bytes(), ttl.map(Duration::from_millis)).map(|()| Value::Null))
        }
        Act::SetBytes(key, length) => told(state::set(key, &vec![b'x'; *length], None).map(|()| Value::Null)),
        Act::Delete(key) => told(state::delete(key).map(Value::from)),
        Act::CompareAndSet(key, expected, value) => {
            let bytes = |text: &Option<String>| text.clone().map(String::into_bytes);
            told(
                state::compare_and_set(key, bytes(expected).as_deref(), bytes(value).as_deref(), None).map(Value::from),
            )
        }
        Act::Increment(key, by, ttl) => {
            told(state::increment(key, *by, ttl.map(Duration::from_millis)).map(Value::from))
        }
        Act::Fetch(url, timeout) => {
            let request = Request::get(url);
            told(sent(match timeout {
                Some(ms) => request.timeout(Duration::from_millis(*ms)),
                None => request,
            }))
        }
        Act::Post(url, length, headers) => {
            let request = Request::post(url, "text/plain", vec![b'x'; *length]);
            told(sent(headers.iter().fold(request, |request, (name, value)| request.header(name, value))))
        }
        Act::Secret(name) => told(secrets::get(name).map(Value::from)),
        Act::Count(name, labels, value) => {
            let labels: Vec<(&str, &str)> =
                labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            told(metrics::count(name, &labels, *value).map(|()| Value::Null))
        }
        Act::Gauge(name, value) => told(metrics::set(name, &[], *value).map(|()| Value::Null)),
        Act::Spin(turns) => {
            let mut sum = 0_u64;
            for turn in 0..*turns {
                sum = std::hint::black_box(sum.wrapping_add(turn));
            }
            json!({ "ok": sum })
        }
    }
}

fn sent(request: Request) -> Result<Value, http::Error> {
    request.send().map(|response| json!([response.status, String::from_utf8_lossy(&response.body)]))
}

fn told<E: std::fmt::Debug>(answer: Result<Value, E>) -> Value {
    match answer {
        Ok(value) => json!({ "ok": value }),
        Err(error) => json!({ "error": format!("{error:?}") }),
    }
}

sluicegate_plugin::export!(Grantee: Transform);
