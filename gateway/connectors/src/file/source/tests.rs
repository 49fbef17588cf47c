use std::fs;
use std::io::Write;

use serde_json::{Value, json};
use sluicegate_engine::delivery::Outcome;
use sluicegate_engine::failure::FailureKind;

use super::*;
use crate::http::Ingress;

struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("in.jsonl"), text).expect("written");
        Self { folder }
    }

    fn append(&self, text: &str) {
        let mut file = fs::File::options().append(true).open(self.folder.path().join("in.jsonl")).expect("open");
        file.write_all(text.as_bytes()).expect("written");
    }

    fn source(&self, extra: Value) -> FileSource {
        let mut settings = json!({ "path": "in.jsonl", "poll": "10ms" });
        settings.as_object_mut().expect("settings").extend(extra.as_object().expect("settings").clone());
        let context = BuildContext {
            pipeline: "orders".into(),
            base_dir: self.folder.path().to_owned(),
            data_dir: self.folder.path().join("data"),
            ingress: Ingress::default(),
            spool: None,
            ordered: false,
            queues: Default::default(),
        };
        FileSource::new(&serde_json::from_value(settings).expect("settings"), &context)
    }

    async fn connect(&self) -> Connection {
        self.source(json!({})).connect().await.expect("connected")
    }
}

fn settled(received: Vec<Received>, outcome: &Outcome) -> Vec<Settled> {
    received.into_iter().map(|r| Settled::new(r.token, Arc::new(r.message), outcome.clone())).collect()
}

fn bodies(received: &[Received]) -> Vec<String> {
    received.iter().map(|r| String::from_utf8_lossy(r.message.body.bytes()).into_owned()).collect()
}

async fn receive(connection: &mut Connection, max: usize) -> Vec<Received> {
    connection.inlet.receive(max).await.expect("lines")
}

#[tokio::test]
async fn a_restart_reads_again_what_was_not_settled_and_nothing_else() {
    let fixture = Fixture::new("1\n2\n3\n4\n");
    let mut connection = fixture.connect().await;
    let mut received = receive(&mut connection, 10).await;
    assert_eq!(received[0].message.source, "file:in.jsonl");
    let first_id = received[2].message.id.clone();
    // 3 is left unsettled, so 4 is read again too.
    let three = received.remove(2);
    connection.settler.settle(&settled(received, &Outcome::default())).await.expect("settled");
    drop((connection, three));
    let mut connection = fixture.connect().await;
    let again = receive(&mut connection, 10).await;
    assert_eq!(bodies(&again), ["3", "4"]);
    assert_eq!(again[0].message.id, first_id);
}

#[tokio::test]
async fn a_requeued_line_comes_again_and_holds_back_the_end() {
    let fixture = Fixture::new("1\n");
    let mut connection = fixture.connect().await;
    let received = receive(&mut connection, 10).await;
    connection.settler.settle(&settled(received, &Outcome::requeued("no room"))).await.expect("settled");
    let again = receive(&mut connection, 10).await;
    assert_eq!((bodies(&again), again[0].message.attempt), (vec!["1".to_owned()], 2));
    let batch = settled(again, &Outcome::default());
    let Connection { mut inlet, mut settler, .. } = connection;
    let (end, ()) = tokio::join!(inlet.receive(10), async { settler.settle(&batch).await.expect("settled") });
    assert_eq!(end.expect_err("the end").kind, FailureKind::EndOfInput);
    let end = fixture.connect().await.inlet.receive(10).await.expect_err("the end");
    assert_eq!(end.kind, FailureKind::EndOfInput);
}

#[tokio::test]
async fn a_new_connection_goes_on_and_takes_settlements_of_the_old_one() {
    let fixture = Fixture::new("1\n2\n");
    let mut source = fixture.source(json!({}));
    let mut first = source.connect().await.expect("connected");
    let received = receive(&mut first, 1).await;
    drop(first);
    let mut second = source.connect().await.expect("connected");
    assert!(second.resumes);
    let rest = receive(&mut second, 10).await;
    assert_eq!(bodies(&rest), ["2"]);
    let batch: Vec<Settled> =
        settled(rest, &Outcome::default()).into_iter().chain(settled(received, &Outcome::default())).collect();
    second.settler.settle(&batch).await.expect("settled");
    let end = fixture.connect().await.inlet.receive(10).await.expect_err("the end");
    assert_eq!(end.kind, FailureKind::EndOfInput);
}

#[tokio::test]
async fn a_followed_file_is_read_on_as_it_grows() {
    let fixture = Fixture::new("");
    let mut connection = fixture.source(json!({ "follow": true })).connect().await.expect("connected");
    let (received, ()) = tokio::join!(receive(&mut connection, 10), async { fixture.append("1\n") });
    assert_eq!(bodies(&received), ["1"]);
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_written_fails_the_settlement_until_it_can() {
    let fixture = Fixture::new("1\n2\n");
    fs::write(fixture.folder.path().join("data"), "a file where the folder should be").expect("written");
    let source = &mut fixture.source(json!({}));
    // Only reading is possible at first: a missing checkpoint inside a file cannot even be looked for.
    assert!(source.connect().await.is_err());
    fs::remove_file(fixture.folder.path().join("data")).expect("removed");
    let mut connection = source.connect().await.expect("connected");
    let batch = settled(receive(&mut connection, 10).await, &Outcome::default());
    fs::write(fixture.folder.path().join("data"), "again").expect("written");
    let failure = connection.settler.settle(&batch).await.expect_err("no checkpoint");
    assert!(failure.text.contains("checkpoint"), "{}", failure.text);
    fs::remove_file(fixture.folder.path().join("data")).expect("removed");
    connection.settler.settle(&batch).await.expect("settled");
    let end = fixture.connect().await.inlet.receive(10).await.expect_err("the end");
    assert_eq!(end.kind, FailureKind::EndOfInput);
}

#[tokio::test]
async fn poison_lines_are_messages_like_others() {
    let fixture = Fixture::new("");
    let bytes = [&b"{\"ok\":1}\n\xff\xfe\n"[..], &[b'x'; 500], b"\nlast"].concat();
    fs::write(fixture.folder.path().join("in.jsonl"), bytes).expect("written");
    let mut connection = fixture.source(json!({ "max_line": "64B" })).connect().await.expect("connected");
    let mut all = receive(&mut connection, 10).await;
    all.extend(receive(&mut connection, 10).await);
    let lengths: Vec<usize> = all.iter().map(|received| received.message.body.len()).collect();
    assert_eq!(lengths, [8, 2, 64, 4]);
    assert!(all[2].message.headers.text(json_lines::PROBLEM_HEADER).is_some());
}

#[tokio::test]
async fn a_missing_file_is_waited_for_only_when_following() {
    let fixture = Fixture::new("");
    let kind = async |settings: Value| fixture.source(settings).connect().await.err().expect("a failure").kind;
    assert_eq!(kind(json!({ "path": "none" })).await, FailureKind::Permanent);
    assert_eq!(kind(json!({ "path": "none", "follow": true })).await, FailureKind::Transient { retry_after: None });
    assert_eq!(kind(json!({ "path": "." })).await, FailureKind::Permanent);
}
