//! Following a redrive job: a bar at a terminal, lines elsewhere.

use std::io::{IsTerminal as _, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use sluicegate_store::Reader;
use sluicegate_store::redrive::{ItemState, Job, JobState};
use tokio::time::{Instant, sleep};

use super::jobs;

/// How often a job is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How often a line is written.
const LINE: Duration = Duration::from_secs(1);
/// A job that no gateway has taken over by then waits for one to be started.
const GATEWAY_LIMIT: Duration = Duration::from_secs(3);

/// Until the job is done, cancelled or paused; returns it. Progress goes to standard error.
pub(super) async fn follow(id: &str, reader: &Reader) -> anyhow::Result<Job> {
    let bar = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{spinner} {wide_bar} {pos}/{len} {msg} {eta}");
        ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    });
    let (began, mut written_at, mut last, mut has_warned) = (Instant::now(), None::<Instant>, String::new(), false);
    loop {
        let job = reader.redrive(id).await?;
        if !has_warned && job.state == JobState::Running && !job.is_owned && began.elapsed() > GATEWAY_LIMIT {
            has_warned = true;
            let text = "no gateway runs on this store; the job begins once one does (Ctrl-C leaves it waiting)";
            match &bar {
                Some(bar) => bar.println(text),
                None => writeln!(std::io::stderr(), "{text}")?,
            }
        }
        match &bar {
            Some(bar) => {
                bar.set_length(job.counts.total());
                bar.set_position(job.counts.ended());
                bar.set_message(format!("{} sent", job.counts.of(ItemState::Sent)));
            }
            None => {
                let line = jobs::line(&job);
                if line != last && written_at.is_none_or(|at| at.elapsed() >= LINE) {
                    writeln!(std::io::stderr(), "{line}")?;
                    (last, written_at) = (line, Some(Instant::now()));
                }
            }
        }
        match job.state {
            JobState::Running => sleep(LOOK).await,
            JobState::Paused | JobState::Cancelled | JobState::Done => {
                if let Some(bar) = &bar {
                    bar.finish_and_clear();
                }
                return Ok(job);
            }
        }
    }
}
