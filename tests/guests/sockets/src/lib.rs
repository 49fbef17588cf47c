//! Opens a TCP connection. The import alone must be refused when it is loaded, or the call fail without a connection.

use std::net::TcpStream;

use serde::Deserialize;
use sluicegate_plugin::{Failure, Filter, Message, Plugin, Reason, Verdict};

#[derive(Deserialize)]
struct Config {
    /// Address and port.
    #[serde(default = "discard")]
    connect_to: String,
}

fn discard() -> String {
    "127.0.0.1:9".to_owned()
}

struct Sockets(Config);

impl Plugin for Sockets {
    type Config = Config;

    fn config_schema() -> String {
        r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object"}"#.to_owned()
    }

    fn configure(config: Config) -> Result<Self, Vec<Reason>> {
        Ok(Self(config))
    }
}

impl Filter for Sockets {
    fn filter(&self, _: &Message) -> Result<Verdict, Failure> {
        match TcpStream::connect(&self.0.connect_to) {
            Ok(_) => Ok(Verdict::Keep),
            Err(error) => Err(Failure::reject("sockets", error.to_string())),
        }
    }
}

sluicegate_plugin::export!(Sockets: Filter);
