//! `sluicegate test`: runs the configuration's test cases through its pipelines' steps, without any broker.

mod comparison;

use std::io::{self, Write};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use sluicegate_engine::delivery::Outcome;
use sluicegate_engine::message::Message;

use super::{Exit, Style};
use crate::config::{Loaded, PipelineConfig, TestCase};

pub use comparison::Difference;

/// Runs messages through pipelines whose targets only remember.
#[async_trait]
pub trait PipelineTrial: Send + Sync {
    /// Runs one message through the steps of `pipeline`, and waits for its outcome.
    ///
    /// # Errors
    /// The pipeline cannot be built, in words for people.
    async fn run(&self, pipeline: &PipelineConfig, message: Message) -> Result<Trial, String>;
}

/// What became of a message.
#[derive(Debug, Clone, Default)]
pub struct Trial {
    /// What was published: the target's name and the message, in order.
    pub published: Vec<(Arc<str>, Arc<Message>)>,
    /// How its way ended.
    pub outcome: Outcome,
}

/// Runs all test cases, or those whose name contains `only`, one after the other.
///
/// Not cancel safe: what is written so far stays written.
///
/// # Errors
/// Writing fails.
pub async fn test(
    loaded: &Loaded,
    trial: &dyn PipelineTrial,
    only: Option<&str>,
    style: Style,
    out: &mut (dyn Write + Send),
) -> io::Result<Exit> {
    let chosen = loaded.config.tests.iter().filter(|case| only.is_none_or(|part| case.name.contains(part)));
    let mut verdicts = Vec::new();
    for case in chosen {
        let verdict = Verdict { case, failure: run(loaded, trial, case).await };
        if let Style::Text { colour } = style {
            verdict.write(colour, out)?;
        }
        verdicts.push(verdict);
    }
    let failed = verdicts.iter().filter(|verdict| verdict.failure.is_some()).count();
    match style {
        Style::Text { .. } if verdicts.is_empty() => writeln!(out, "no tests{}", matching(only))?,
        Style::Text { .. } => writeln!(out, "{} passed, {failed} failed", verdicts.len() - failed)?,
        Style::Json => {
            let tests: Vec<Value> = verdicts.iter().map(Verdict::to_json).collect();
            let report = json!({ "tests": tests, "passed": verdicts.len() - failed, "failed": failed });
            writeln!(out, "{report:#}")?;
        }
    }
    Ok(if failed == 0 { Exit::Clean } else { Exit::Failed })
}

fn matching(only: Option<&str>) -> String {
    match only {
        Some(part) => format!(" whose name contains `{part}`"),
        None => "; write some under `tests:`".to_owned(),
    }
}

/// Why a test failed.
enum Failure {
    /// It could not be run.
    NotRun(String),
    /// Something else came out.
    Different { differences: Vec<Difference>, trial: Box<Trial> },
}

async fn run(loaded: &Loaded, trial: &dyn PipelineTrial, case: &TestCase) -> Option<Failure> {
    let Some(pipeline) = loaded.config.pipeline(&case.pipeline) else {
        return Some(Failure::NotRun(format!("there is no pipeline `{}`", case.pipeline)));
    };
    let trial = match trial.run(pipeline, case.given.clone()).await {
        Ok(trial) => trial,
        Err(why) => return Some(Failure::NotRun(why)),
    };
    let differences = comparison::compare(&case.expect, &trial);
    (!differences.is_empty()).then(|| Failure::Different { differences, trial: Box::new(trial) })
}

struct Verdict<'c> {
    case: &'c TestCase,
    failure: Option<Failure>,
}

impl Verdict<'_> {
    fn write(&self, colour: bool, out: &mut (dyn Write + Send)) -> io::Result<()> {
        let paint =
            |code: &str, text: &str| if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
        let word = if self.failure.is_none() { paint("32", "ok") } else { paint("31", "FAILED") };
        writeln!(out, "{word} {} ({})", self.case.name, self.case.pipeline)?;
        match &self.failure {
            None => Ok(()),
            Some(Failure::NotRun(why)) => writeln!(out, "    could not be run: {why}"),
            Some(Failure::Different { differences, trial }) => {
                for difference in differences {
                    writeln!(out, "    {}", difference.what)?;
                    writeln!(out, "      {} {}", paint("32", "expected"), difference.expected)?;
                    writeln!(out, "      {} {}", paint("31", "actual  "), difference.actual)?;
                }
                for line in happened(trial) {
                    writeln!(out, "    {line}")?;
                }
                Ok(())
            }
        }
    }

    fn to_json(&self) -> Value {
        let mut object = json!({
            "name": self.case.name, "pipeline": self.case.pipeline, "passed": self.failure.is_none(),
        });
        match &self.failure {
            None => {}
            Some(Failure::NotRun(why)) => object["error"] = json!(why),
            Some(Failure::Different { differences, trial }) => {
                let differences: Vec<Value> = differences
                    .iter()
                    .map(|d| json!({ "what": d.what, "expected": d.expected, "actual": d.actual }))
                    .collect();
                object["differences"] = json!(differences);
                object["happened"] = json!(happened(trial));
            }
        }
        object
    }
}

/// What explains an unexpected end.
fn happened(trial: &Trial) -> Vec<String> {
    let outcome = &trial.outcome;
    let mut lines: Vec<String> = outcome.dropped.iter().map(|reason| format!("dropped: {reason}")).collect();
    for letter in &outcome.dead_letters {
        let step = letter.step.as_deref().map_or(String::new(), |step| format!(" at step `{step}`"));
        lines.push(format!("dead letter{step}, {}: {}", letter.class.name(), letter.error));
    }
    lines.extend(outcome.undecided.iter().map(|why| format!("undecided: {why}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::in_memory::load_text;

    /// Publishes every message to `eu`, unless it is to fail.
    struct ToEu;

    #[async_trait]
    impl PipelineTrial for ToEu {
        async fn run(&self, _: &PipelineConfig, message: Message) -> Result<Trial, String> {
            if message.kind == "unbuildable" {
                return Err("the plugin is broken".to_owned());
            }
            Ok(Trial { published: vec![("eu".into(), Arc::new(message))], outcome: Outcome::default() })
        }
    }

    const CONFIG: &str = "pipelines:
  p: { source: { stdio: {} }, targets: { eu: { stdio: {} }, us: { stdio: {} } } }
tests:
  - { name: goes to eu, pipeline: p, given: { body: { a: 1 } }, expect: { targets: [eu], body: { a: 1 } } }
  - { name: goes to us, pipeline: p, given: { body: { a: 1 } }, expect: { targets: [us], body: { a: 2 } } }
  - { name: cannot run, pipeline: p, given: { kind: unbuildable }, expect: { targets: [] } }
";

    async fn run(only: Option<&str>, style: Style) -> (Exit, String) {
        let loaded = load_text(CONFIG).unwrap_or_else(|wrong| panic!("{wrong}"));
        let mut out = Vec::new();
        let exit = test(&loaded, &ToEu, only, style, &mut out).await.expect("write");
        (exit, String::from_utf8(out).expect("UTF-8"))
    }

    #[tokio::test]
    async fn a_failing_test_shows_what_differs() {
        let (exit, text) = run(None, Style::Text { colour: false }).await;
        let expected = "\
ok goes to eu (p)
FAILED goes to us (p)
    targets
      expected [\"us\"]
      actual   [\"eu\"]
    message 1, body /a
      expected 2
      actual   1
FAILED cannot run (p)
    could not be run: the plugin is broken
1 passed, 2 failed
";
        assert_eq!((exit, text.as_str()), (Exit::Failed, expected));
    }

    #[tokio::test]
    async fn tests_can_be_chosen_and_reported_as_json() {
        let (exit, json) = run(Some("to eu"), Style::Json).await;
        let json: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((exit, &json["passed"], &json["failed"]), (Exit::Clean, &json!(1), &json!(0)));
        let (exit, text) = run(Some("nothing"), Style::Text { colour: false }).await;
        assert_eq!((exit, text.as_str()), (Exit::Clean, "no tests whose name contains `nothing`\n"));
    }
}
