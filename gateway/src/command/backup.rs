//! `sluicegate backup` and `sluicegate restore`.

use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use sluicegate_store::Location;
use sluicegate_store::backup::{self, BackupError, Manifest, Progress, Restored};

use super::location::StoreArgs;

/// Back up the store and what else of the data folder matters, while a gateway runs or not.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct BackupArgs {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The folder to make.
    pub destination: PathBuf,
    /// Print the manifest, as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Bring a backup back, to a data folder that no gateway uses.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RestoreArgs {
    /// Where to.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The folder that `sluicegate backup` has made.
    pub source: PathBuf,
    /// Restore although the data folder is not empty; what is there is kept aside, in a folder in it.
    #[arg(long)]
    pub force: bool,
    /// Print what was restored, as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Makes a backup and says where it is.
///
/// # Errors
/// It could not be made; nothing is left behind then. With PostgreSQL, which command makes it.
pub async fn back_up(args: BackupArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let destination = args.destination.clone();
    let found = args.store.find(None)?;
    let data_dir = match found.options.location {
        Location::Embedded { data_dir } => data_dir,
        location @ Location::Shared { .. } => {
            let checkpoints = match found.config {
                Some(config) => config.data_dir.join("checkpoints").display().to_string(),
                None => "each gateway's data_dir, `checkpoints`".to_owned(),
            };
            bail!(
                "the store is in PostgreSQL, which makes its own backups; run\n\n    \
                 pg_dump --format=custom --no-owner --file='{}' '{}'\n\n\
                 with the user and password of `store` in PGUSER and PGPASSWORD. Gateways may go on. \
                 Checkpoints of file sources are in {}",
                destination.display(),
                place(location).await?,
                checkpoints
            )
        }
    };
    let made_at = Timestamp::now().to_string();
    let bar = bar("backing up");
    let made = on_a_thread(move || {
        let made = backup::back_up(&data_dir, &args.destination, &made_at, &mut |now| show(&bar, now));
        bar.finish_and_clear();
        made
    });
    let manifest = made.await.with_context(|| format!("no backup was made in {}", destination.display()))?;
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &manifest)?;
        writeln!(out)?;
    } else {
        let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
        writeln!(out, "{} holds {} files, {bytes} bytes", destination.display(), manifest.files.len())?;
        write_keys(&manifest, out)?;
    }
    out.flush()?;
    Ok(())
}

/// Restores a backup and says what to do next.
///
/// # Errors
/// It was not restored; the data folder is as it was, unless the text says otherwise. With PostgreSQL, which command
/// restores it.
pub async fn restore(args: RestoreArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let data_dir = match args.store.find(None)?.options.location {
        Location::Embedded { data_dir } => data_dir,
        location @ Location::Shared { .. } => {
            bail!(
                "the store is in PostgreSQL, which restores its own backups; stop all gateways and run\n\n    \
                 pg_restore --clean --if-exists --no-owner --single-transaction --dbname='{}' '{}'\n\n\
                 with the user and password of `store` in PGUSER and PGPASSWORD, then start them again",
                place(location).await?,
                args.source.display()
            )
        }
    };
    let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let bar = bar("restoring");
    let (source, folder) = (args.source.clone(), data_dir.clone());
    let restored = on_a_thread(move || {
        let restored = backup::restore(&source, &folder, args.force, &stamp, &mut |now| show(&bar, now));
        bar.finish_and_clear();
        restored
    });
    let restored = restored
        .await
        .with_context(|| format!("{} was not restored to {}", args.source.display(), data_dir.display()))?;
    let Restored { manifest, aside } = &restored;
    if args.json {
        let aside = aside.as_ref().map(|aside| aside.display().to_string());
        let value = serde_json::json!({ "data_dir": data_dir, "aside": aside, "manifest": manifest });
        serde_json::to_writer_pretty(&mut *out, &value)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{} holds the backup of {}", data_dir.display(), manifest.made_at)?;
        if let Some(aside) = aside {
            writeln!(out, "what was there before is in {}; remove it when it is of no more use", aside.display())?;
        }
        write_keys(manifest, out)?;
        writeln!(
            out,
            "start the gateway with this data_dir: it goes on with what was under way then, so messages that were \
             delivered since the backup are delivered again"
        )?;
    }
    out.flush()?;
    Ok(())
}

fn write_keys(manifest: &Manifest, out: &mut impl Write) -> std::io::Result<()> {
    match &manifest.master_key {
        None => writeln!(out, "bodies in it are not encrypted"),
        Some(fingerprint) => writeln!(
            out,
            "bodies in it are encrypted: nobody can read them without the master key of fingerprint {fingerprint}, \
             which is not in it"
        ),
    }
}

async fn place(location: Location) -> anyhow::Result<String> {
    Ok(tokio::task::spawn_blocking(move || location.place()).await??.to_string())
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> anyhow::Result<T> {
    Ok(tokio::task::spawn_blocking(work).await.context("the thread failed")??)
}

/// At a terminal alone.
fn bar(doing: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes} of {total_bytes}, {eta} left");
    let bar = ProgressBar::new(0).with_message(doing);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn show(bar: &ProgressBar, now: Progress) {
    bar.set_length(now.total_bytes);
    bar.set_position(now.done_bytes);
}
