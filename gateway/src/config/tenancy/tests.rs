use sluicegate_engine::step::Unroutable;

use super::*;
use crate::config::in_memory::load_text;

const OPERATOR: &str = "
data_dir: /data
tenants:
  sources:
    events: { rabbitmq: { url: 'amqp://gateway:hunter22@broker:5672', queue: events } }
  targets:
    crm: { redis: { url: 'redis://:hunter22@broker:6379', stream: crm } }
    log: { file: { path: out/log.jsonl } }
";

fn holdings(documents: &[(DocumentKind, &str, &str)]) -> Holdings {
    let document = |(kind, name, text): &(DocumentKind, &str, &str)| Document {
        kind: *kind,
        name: (*name).to_owned(),
        text: (*text).into(),
    };
    Holdings {
        tenant: TenantName::parse("acme").expect("a name"),
        documents: documents.iter().map(document).collect(),
        queues: vec!["tasks".to_owned()],
        plugins: Vec::new(),
        sources: vec!["events".to_owned()],
        targets: vec!["crm".to_owned()],
        max_in_flight: 100,
    }
}

fn load(documents: &[(DocumentKind, &str, &str)]) -> Result<Config, Vec<String>> {
    let operator = load_text(OPERATOR).unwrap_or_else(|wrong| panic!("{wrong}")).config;
    load_tenant(&operator, &holdings(documents)).map(|loaded| loaded.config).map_err(|wrong| {
        let text = wrong.to_string() + &wrong.to_json().to_string();
        assert!(!text.contains("hunter22"), "{text}");
        let said = |d: &Diagnostic| {
            let at = d.location.expect("a place");
            format!("{}:{} {}: {} ({})", at.line, at.column, d.path, d.text, d.hint.as_deref().unwrap_or_default())
        };
        wrong.iter().map(said).collect()
    })
}

use DocumentKind::{Pipeline, Schema};

#[test]
fn a_tenants_pipeline_is_like_an_operators_and_bears_its_tenants_name() {
    let pipeline = "
source: { http: { respond: accepted } }
steps:
  - validate: { schema: order }
  - route: { plugin: content-router, config: { routes: [] }, unroutable: hook }
targets:
  hook: { http: { url: 'https://example.org/hook', signing_secret: s3cr3t-s3cr3t } }
  tasks: { queue: tasks }
  crm: { granted: crm }
";
    let config = load(&[(Pipeline, "orders", pipeline), (Schema, "order", r#"{ "type": "object" }"#)]);
    let config = config.unwrap_or_else(|wrong| panic!("{wrong:#?}"));
    let orders = config.pipeline("acme/orders").expect("the pipeline");
    let SourceConfig::Http(source) = &orders.source else { panic!("{:?}", orders.source) };
    assert_eq!(source.path, "/ingest/acme/orders");
    let systems: Vec<_> = orders.targets.iter().map(|(name, target)| (&**name, target.system())).collect();
    assert_eq!(systems, [("hook", "http"), ("tasks", "queue"), ("crm", "redis")]);
    let TargetConfig::Queue(queue) = &orders.targets[1].1 else { panic!("{:?}", orders.targets[1]) };
    assert_eq!(queue.name, "acme/tasks");
    let StepConfig::Route { plugin, unroutable, .. } = &orders.steps[1] else { panic!("{:?}", orders.steps) };
    assert_eq!((&*plugin.name, unroutable), ("acme/content-router", &Unroutable::Target("hook".into())));
    assert_eq!((orders.max_in_flight, config.data_dir.to_str()), (100, Some("/data")));
}

#[test]
fn a_queue_is_read_in_a_group_of_the_pipelines_own_name() {
    let pipeline = "{ source: { queue: tasks }, targets: { out: { queue: tasks } } }";
    let config = load(&[(Pipeline, "work", pipeline)]).unwrap_or_else(|wrong| panic!("{wrong:#?}"));
    let SourceConfig::Queue(queue) = &config.pipelines[0].source else { panic!("no queue") };
    assert_eq!((queue.name.as_str(), queue.group.as_deref()), ("acme/tasks", Some("work")));
}

#[test]
fn what_is_not_a_tenants_is_refused_in_its_own_lines() {
    let pipeline = "source: { rabbitmq: { url: 'amqp://localhost', queue: q } }
targets:
  file: { file: { path: /etc/passwd } }
  log: { granted: log }
  crn: { granted: crn }
  hook: { http: { url: 'https://example.org', tls: { ca_file: /etc/passwd } } }
  other: { queue: others }
dead_letter: { rabbitmq: { exchange: x } }
max_in_flight: 101
";
    let wrong = load(&[(Pipeline, "orders", pipeline)]).expect_err("refused");
    let expected = [
        "1:11 pipelines.orders.source.rabbitmq: a tenant's pipeline cannot read from `rabbitmq` (use http, queue or granted; you are granted events)",
        "3:11 pipelines.orders.targets.file.file: a tenant's pipeline cannot write to `file` (use http, queue or granted; you are granted crm)",
        "4:19 pipelines.orders.targets.log.granted: nothing called `log` is granted to you (you are granted crm)",
        "5:19 pipelines.orders.targets.crn.granted: nothing called `crn` is granted to you (did you mean `crm`?)",
        "6:47 pipelines.orders.targets.hook.http.tls: `tls` is not a setting of a tenant's webhook (these are: url, method, format, headers, signing_secret, timeout, connect_timeout or max_concurrent)",
        "7:19 pipelines.orders.targets.other.queue: there is no queue `others` (define it under `queues:`; known: tasks)",
        "8:1 pipelines.orders.dead_letter: `dead_letter` is the operator's to set (dead letters are kept in the gateway; see /api/v1/dead-letters)",
        "9:16 pipelines.orders.max_in_flight: 101 is more than your quota of messages in flight (at most 100)",
    ];
    assert_eq!(wrong, expected);
}

#[test]
fn nothing_comes_from_files_or_the_environment() {
    let pipeline = "{ source: { http: {} }, targets: { hook: { http: { url: 'https://example.org/${file:/etc/passwd}', headers: { a: '${HOME}' } } } } }";
    let config = load(&[(Pipeline, "orders", pipeline)]).unwrap_or_else(|wrong| panic!("{wrong:#?}"));
    let TargetConfig::Http(target) = &config.pipelines[0].targets[0].1 else { panic!("no webhook") };
    assert_eq!(target.headers["a"].expose(), "${HOME}");
    let schema = r##"{ "$ref": "file:///etc/passwd" }"##;
    assert!(load(&[(Schema, "order", schema)]).is_err());
}

#[test]
fn paths_stay_below_the_tenants_own() {
    for path in ["../other/orders", "/../other", "/.", "//x"] {
        let pipeline =
            format!("{{ source: {{ http: {{ path: '{path}' }} }}, targets: {{ out: {{ queue: tasks }} }} }}");
        assert!(load(&[(Pipeline, "orders", &pipeline)]).is_err(), "{path}");
    }
    let pipeline = "{ source: { http: { path: /deep/orders } }, targets: { out: { queue: tasks } } }";
    let config = load(&[(Pipeline, "orders", pipeline)]).unwrap_or_else(|wrong| panic!("{wrong:#?}"));
    let SourceConfig::Http(source) = &config.pipelines[0].source else { panic!("no path") };
    assert_eq!(source.path, "/ingest/acme/deep/orders");
}

#[test]
fn a_tenant_without_pipelines_is_in_order() {
    assert_eq!(load(&[]).map(|config| config.pipelines.len()), Ok(0));
}

#[test]
fn two_tenants_with_the_same_document_have_two_pipelines() {
    let operator = load_text(OPERATOR).unwrap_or_else(|wrong| panic!("{wrong}")).config;
    let pipeline = "{ source: { http: {} }, targets: { out: { queue: tasks } } }";
    let acme = holdings(&[(Pipeline, "orders", pipeline)]);
    let zeta = Holdings { tenant: TenantName::parse("zeta").expect("a name"), ..acme.clone() };
    let name = |holdings| {
        load_tenant(&operator, holdings).unwrap_or_else(|wrong| panic!("{wrong}")).config.pipelines[0].name.to_string()
    };
    assert_eq!((name(&acme), name(&zeta)), ("acme/orders".to_owned(), "zeta/orders".to_owned()));
}
