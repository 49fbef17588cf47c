//! The gateway's side: the configuration of the pipeline that is measured.

use super::Plan;
use super::broker::{Names, System};
use super::load;
use super::side::{Side, URL_VARIABLE};

/// A filter that reads one value of the body and lets every message pass.
pub(super) const DEFAULT_FILTER: &str = "{ plugin: jq, config: { program: '.test != true' } }";

/// One source, one filter, one router, one target; nothing else is configured but what makes both sides do the same.
pub(super) fn configuration(system: System, names: &Names, side: Side, plan: &Plan) -> String {
    let Names { source, target } = names;
    let Plan { in_flight, filter, data_dir, .. } = plan;
    // Single quotes take everything as it is but themselves.
    let data_dir = data_dir.display().to_string().replace('\'', "''");
    let (source, target) = match system {
        System::Rabbitmq => (
            format!("{{ rabbitmq: {{ url: '${{{URL_VARIABLE}}}', queue: {source}, prefetch: {in_flight} }} }}"),
            format!("{{ rabbitmq: {{ url: '${{{URL_VARIABLE}}}', exchange: {target}, routing_key: {target} }} }}"),
        ),
        System::Redis => (
            format!("{{ redis: {{ url: '${{{URL_VARIABLE}}}', stream: {source}, batch: {in_flight} }} }}"),
            format!("{{ redis: {{ url: '${{{URL_VARIABLE}}}', stream: {target} }} }}"),
        ),
    };
    let kind = load::KIND;
    let receipts = match side {
        Side::GatewayWithoutReceipts => "receipts: { sample: 0 }\n",
        Side::GatewayWithReceipts => "receipts: { sample: 1 }\n",
        Side::Bare | Side::Gateway | Side::GatewayWithoutSteps => "",
    };
    let steps = if side != Side::GatewayWithoutSteps {
        format!(
            "[{{ filter: {filter} }}, \
              {{ route: {{ plugin: topic-router, config: {{ patterns: [{{ pattern: {kind}, to: [out] }}] }} }} }}]"
        )
    } else {
        "[]".to_owned()
    };
    format!(
        "server: {{ listen: 127.0.0.1:0 }}\n\
         data_dir: '{data_dir}'\n\
         {receipts}\
         pipelines:\n  \
           bench:\n    \
             source: {source}\n    \
             steps: {steps}\n    \
             targets: {{ out: {target} }}\n    \
             max_in_flight: {in_flight}\n"
    )
}

#[cfg(test)]
mod tests {
    use std::env::VarError;
    use std::io;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::config::{self, Surroundings};

    /// One file and one variable.
    struct Written {
        configuration: String,
        url: &'static str,
    }

    impl Surroundings for Written {
        fn variable(&self, name: &str) -> Result<String, VarError> {
            if name == URL_VARIABLE { Ok(self.url.to_owned()) } else { Err(VarError::NotPresent) }
        }

        fn read(&self, _: &Path, _: u64) -> io::Result<Vec<u8>> {
            Ok(self.configuration.clone().into_bytes())
        }

        fn list(&self, _: &Path) -> io::Result<Option<Vec<PathBuf>>> {
            Ok(None)
        }
    }

    #[test]
    fn what_is_measured_is_a_valid_configuration() {
        let plan = Plan {
            program: PathBuf::new(),
            seconds: 1,
            rounds: 1,
            body_bytes: 1_024,
            in_flight: 7,
            latency_rate: 0,
            filter: DEFAULT_FILTER.to_owned(),
            sides: Vec::new(),
            data_dir: "/tmp/it's".into(),
        };
        let names = Names { source: "bench-1-source".to_owned(), target: "bench-1-target".to_owned() };
        for (system, url) in [(System::Rabbitmq, "amqp://localhost"), (System::Redis, "redis://localhost")] {
            for (side, has_steps, sample) in [
                (Side::Gateway, true, 0.01),
                (Side::GatewayWithoutSteps, false, 0.01),
                (Side::GatewayWithoutReceipts, true, 0.0),
                (Side::GatewayWithReceipts, true, 1.0),
            ] {
                let configuration = configuration(system, &names, side, &plan);
                let loaded = config::load(&["/bench.yaml".into()], &Written { configuration, url });
                let config = loaded.unwrap_or_else(|wrong| panic!("{wrong}")).config;
                let pipeline = config.pipeline("bench").expect("the pipeline");
                assert!((config.receipts.sample - sample).abs() < f64::EPSILON);
                assert_eq!(pipeline.steps.len(), if has_steps { 2 } else { 0 });
                assert_eq!(pipeline.max_in_flight, 7);
                assert_eq!(config.data_dir, Path::new("/tmp/it's"));
            }
        }
    }
}
