//! The gateway's side: the configuration of the pipeline that is measured.

use super::Plan;
use super::broker::{Names, System};
use super::load;
use super::side::URL_VARIABLE;

/// A filter that reads one value of the body and lets every message pass.
pub(super) const DEFAULT_FILTER: &str = "{ plugin: jq, config: { program: '.test != true' } }";

/// One source, one filter, one router, one target; nothing else is configured but what makes both sides do the same.
pub(super) fn configuration(system: System, names: &Names, plan: &Plan) -> String {
    let Names { source, target } = names;
    let Plan { in_flight, filter, .. } = plan;
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
    format!(
        "server: {{ listen: 127.0.0.1:0 }}\n\
         data_dir: data\n\
         pipelines:\n  \
           bench:\n    \
             source: {source}\n    \
             steps:\n      \
               - filter: {filter}\n      \
               - route: {{ plugin: topic-router, config: {{ patterns: [{{ pattern: {kind}, to: [out] }}] }} }}\n    \
             targets:\n      \
               out: {target}\n    \
             max_in_flight: {in_flight}\n"
    )
}
