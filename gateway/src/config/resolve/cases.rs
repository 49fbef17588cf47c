//! Test cases: their messages and what is to come out.

use std::collections::HashMap;

use serde_json::Value;
use sluicegate_engine::failure::FailureClass;
use sluicegate_engine::message::Message;

use super::Resolver;
use crate::config::expectation::DroppedSection;
use crate::config::resolved::{Expectation, ExpectedDrop, ExpectedMessage, TestCase};
use crate::config::tree::join;
use crate::config::written::{ExpectSection, ExpectedMessageSection, GivenSection, TestSection};

/// When the messages of tests were made, in milliseconds since the Unix epoch: 2026-01-01T00:00:00Z. Plugins see it as
/// their clock, so tests give the same on every run.
const TEST_TIME_MS: u64 = 1_767_225_600_000;

impl Resolver<'_> {
    /// `places` are those of the cases among all that are written.
    pub(super) fn cases(&mut self, places: &[usize]) -> Vec<TestCase> {
        let mut first: HashMap<&str, usize> = HashMap::new();
        let written = self.written;
        let mut cases = Vec::new();
        for (section, index) in written.tests.iter().zip(places) {
            if let Some(first) = first.insert(&section.name, *index) {
                let other = self.root.place(&format!("/tests/{first}/name"));
                let mistake = self.wrong(&format!("/tests/{index}/name"), "another test has this name");
                mistake.related = Some(Box::new((other, "the other one".to_owned())));
                mistake.hint = Some("give each test a name of its own".to_owned());
            }
            cases.push(self.case(section, *index));
        }
        cases
    }

    fn case(&mut self, section: &TestSection, index: usize) -> TestCase {
        let pointer = format!("/tests/{index}");
        let pipelines = self.defined("pipelines");
        if !pipelines.contains(&section.pipeline) {
            let known: Vec<&str> = pipelines.iter().map(String::as_str).collect();
            let place = join(&pointer, "pipeline");
            self.unknown(&place, "pipeline", &section.pipeline, &known, "name one of `pipelines:`");
        }
        let given = self.given(&join(&pointer, "given"), index, &section.given);
        let expect = self.expect(&join(&pointer, "expect"), section);
        TestCase { name: section.name.clone(), pipeline: section.pipeline.as_str().into(), given, expect }
    }

    fn given(&mut self, pointer: &str, index: usize, given: &GivenSection) -> Message {
        if given.body.is_some() && given.text.is_some() {
            self.wrong(&join(pointer, "text"), "the message has both `body` and `text`").hint =
                Some("`body` is a value that is sent as JSON, `text` is sent as it is; keep one".to_owned());
        }
        let (body, content_type) = match (&given.body, &given.text) {
            (Some(value), _) => (value.to_string(), Some("application/json".to_owned())),
            (None, text) => (text.clone().unwrap_or_default(), None),
        };
        let or = |text: &Option<String>, default: &str| text.clone().unwrap_or_else(|| default.to_owned());
        let mut message = Message::new(or(&given.source, "sluicegate-test"), or(&given.kind, "test"), body);
        message.id = given.id.clone().unwrap_or_else(|| format!("test-{}", index + 1));
        message.time_ms = TEST_TIME_MS;
        message.subject.clone_from(&given.subject);
        message.key = given.key.clone().map(Into::into);
        message.content_type = given.content_type.clone().or(content_type);
        message.headers = given.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        message.attempt = given.attempt.unwrap_or(1);
        message
    }

    fn expect(&mut self, pointer: &str, section: &TestSection) -> Expectation {
        let expect = &section.expect;
        let targets = expect.targets.clone().map(|mut targets| {
            for (index, target) in targets.iter().enumerate() {
                self.known_target(&join(&join(pointer, "targets"), &index.to_string()), &section.pipeline, target);
            }
            targets.sort();
            targets
        });
        let messages = expect.messages.as_ref().map(|messages| {
            for (index, message) in messages.iter().enumerate() {
                if let Some(target) = &message.target {
                    let place = join(&join(&join(pointer, "messages"), &index.to_string()), "target");
                    self.known_target(&place, &section.pipeline, target);
                }
            }
            messages.iter().map(one).collect()
        });
        if says_nothing(expect) {
            self.wrong(pointer, "the test expects nothing, so it cannot fail").hint = Some(
                "write at least one of targets, body, headers, kind, key, messages, dropped, dead_letter".to_owned(),
            );
        }
        Expectation {
            targets,
            every: ExpectedMessage {
                target: None,
                body: expect.body.clone(),
                headers: headers(expect.headers.as_ref()),
                kind: expect.kind.clone(),
                key: expect.key.clone(),
            },
            messages,
            dropped: expect.dropped.as_ref().map(dropped),
            dead_letter: self.class(&join(pointer, "dead_letter"), expect.dead_letter.as_deref()),
        }
    }

    fn known_target(&mut self, pointer: &str, pipeline: &str, target: &str) {
        let targets = self.root.find(&join(&join("/pipelines", pipeline), "targets"));
        // Without targets to compare with, the mistake is elsewhere.
        let Some(targets) = targets else { return };
        let known: Vec<String> = targets.entries().iter().map(|entry| entry.key.clone()).collect();
        if !known.iter().any(|name| name == target) {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let what = format!("target of the pipeline `{pipeline}` called");
            self.unknown(pointer, &what, target, &known, "name one of its targets");
        }
    }

    fn class(&mut self, pointer: &str, name: Option<&str>) -> Option<FailureClass> {
        let name = name?;
        let class = FailureClass::from_name(name);
        if class.is_none() {
            let known = FailureClass::ALL.map(FailureClass::name);
            self.unknown(pointer, "class of dead letters", name, &known, "name one of the classes");
        }
        class
    }
}

fn one(message: &ExpectedMessageSection) -> ExpectedMessage {
    ExpectedMessage {
        target: message.target.clone(),
        body: message.body.clone(),
        headers: headers(message.headers.as_ref()),
        kind: message.kind.clone(),
        key: message.key.clone(),
    }
}

fn headers(written: Option<&crate::config::entries::Entries<String>>) -> Vec<(String, String)> {
    written.map(|headers| headers.0.clone()).unwrap_or_default()
}

fn dropped(written: &DroppedSection) -> ExpectedDrop {
    match written {
        DroppedSection::Whether(false) => ExpectedDrop::No,
        DroppedSection::Whether(true) => ExpectedDrop::ForAnyReason,
        DroppedSection::Because(code) => ExpectedDrop::Because(code.clone()),
    }
}

fn says_nothing(expect: &ExpectSection) -> bool {
    let ExpectSection { targets, body, headers, kind, key, messages, dropped, dead_letter } = expect;
    let value = |value: &Option<Value>| value.is_none();
    targets.is_none()
        && value(body)
        && headers.is_none()
        && kind.is_none()
        && key.is_none()
        && messages.is_none()
        && dropped.is_none()
        && dead_letter.is_none()
}
