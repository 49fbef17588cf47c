//! A private PostgreSQL.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::server::{START_LIMIT, Server, own};
use crate::port::Port;
use crate::process::{Program, run};
use crate::{eventually, unique};

/// A PostgreSQL with the superuser `postgres`, trusted without a password, and the database `postgres`.
#[derive(Debug)]
pub struct Postgres {
    url: String,
    server: Option<Server>,
}

/// What a server shows to who connects with TLS.
#[derive(Debug)]
pub struct Certificate<'a> {
    /// The certificate.
    pub file: &'a Path,
    /// Its key.
    pub key_file: &'a Path,
}

impl Postgres {
    /// Starts one of the caller's own.
    ///
    /// # Errors
    /// When PostgreSQL is missing or does not answer, with its log.
    pub async fn start() -> Result<Self> {
        Self::start_with(None).await
    }

    /// As [`start`](Self::start), for TLS alone, with this certificate (PEM).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with_tls(certificate: &Certificate<'_>) -> Result<Self> {
        Self::start_with(Some(certificate)).await
    }

    async fn start_with(certificate: Option<&Certificate<'_>>) -> Result<Self> {
        let port = Port::reserve()?;
        let folder = tempfile::Builder::new().prefix("sluicegate-postgres-").tempdir()?;
        let (programs, data) = (newest_programs()?, folder.path().join("data"));
        std::fs::create_dir(&data)?;
        let server_user = ServerUser::choose()?;
        server_user.own(folder.path(), &data)?;
        run(server_user.program(&programs.join("initdb")), |command| {
            command.args(server_user.arguments(&programs.join("initdb")));
            command.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync"]).arg(&data);
            command.current_dir(&data);
        })?;
        let postgres = programs.join("postgres");
        let mut command = Command::new(server_user.program(&postgres));
        command.args(server_user.arguments(&postgres));
        command.arg("-D").arg(&data).args(["-p", &port.number().to_string()]);
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]).current_dir(&data);
        if let Some(certificate) = certificate {
            let (file, key_file) = (data.join("server.pem"), data.join("server.key.pem"));
            std::fs::copy(certificate.file, &file)?;
            std::fs::copy(certificate.key_file, &key_file)?;
            // Others may not read the key, or the server refuses it.
            std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600))?;
            server_user.own(&file, &key_file)?;
            std::fs::write(data.join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 trust\n")?;
            command.args(["-c", "ssl=on", "-c", "ssl_cert_file=server.pem", "-c", "ssl_key_file=server.key.pem"]);
        }
        let program = Program {
            name: "postgres",
            command,
            output: folder.path().join("output.log"),
            folder: Some(folder.path().to_owned()),
        };
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", port.number());
        let server = Server::start(program, port, folder, async || probe(&url)).await?;
        Ok(Self { url, server: Some(server) })
    }

    pub(super) fn running_elsewhere(url: String) -> Self {
        Self { url, server: None }
    }

    /// `postgres://postgres@127.0.0.1:PORT/postgres`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL of a new, empty database of this server.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn new_database(&self) -> Result<String> {
        let name = unique("gateway");
        let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await?;
        let driving = tokio::spawn(connection);
        client.batch_execute(&format!("CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8'")).await?;
        drop(client);
        driving.await??;
        let (server, _) = self.url.rsplit_once('/').context("the server's URL has no database")?;
        Ok(format!("{server}/{name}"))
    }

    /// SIGKILL; what was committed stays.
    ///
    /// # Errors
    /// When it is the shared one.
    pub fn kill(&mut self) -> Result<()> {
        own(&mut self.server, "PostgreSQL")?.kill()
    }

    /// Starts it again on the same port with the same data.
    ///
    /// # Errors
    /// When it is the shared one or does not answer.
    pub async fn restart(&mut self) -> Result<()> {
        let (url, server) = (&self.url, own(&mut self.server, "PostgreSQL")?);
        // Children of a killed server notice its death a moment later, and until then it refuses to start.
        eventually("PostgreSQL starts again", START_LIMIT, async || server.restart(async || probe(url)).await).await;
        Ok(())
    }
}

/// PostgreSQL refuses to run as root, so root starts it as the user its package made.
enum ServerUser {
    Ourselves,
    Postgres { uid: u32, gid: u32 },
}

impl ServerUser {
    fn choose() -> Result<Self> {
        let number = |option: &str, user: &[&str]| -> Result<u32> {
            Ok(run("id", |command| {
                command.arg(option).args(user);
            })?
            .trim()
            .parse()?)
        };
        if number("-u", &[])? != 0 {
            return Ok(Self::Ourselves);
        }
        Ok(Self::Postgres { uid: number("-u", &["postgres"])?, gid: number("-g", &["postgres"])? })
    }

    /// Gives it its data folder, below one it may pass through, or two files.
    fn own(&self, folder: &Path, data: &Path) -> Result<()> {
        if let Self::Postgres { uid, gid } = self {
            for path in [folder, data] {
                chown(path, Some(*uid), Some(*gid))
                    .with_context(|| format!("giving {} to postgres", path.display()))?;
            }
        }
        Ok(())
    }

    fn program(&self, program: &Path) -> PathBuf {
        match self {
            Self::Ourselves => program.to_owned(),
            Self::Postgres { .. } => PathBuf::from("setpriv"),
        }
    }

    fn arguments(&self, program: &Path) -> Vec<String> {
        match self {
            Self::Ourselves => Vec::new(),
            Self::Postgres { uid, gid } => vec![
                format!("--reuid={uid}"),
                format!("--regid={gid}"),
                "--clear-groups".to_owned(),
                program.display().to_string(),
            ],
        }
    }
}

/// Debian keeps each version in a folder of its own and none on the path.
fn newest_programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter(|entry| entry.path().join("bin/initdb").exists())
        .max_by_key(|entry| entry.file_name().to_string_lossy().parse::<u32>().unwrap_or(0))
        .context("PostgreSQL is not installed (Debian: postgresql): no initdb in /usr/lib/postgresql/*/bin")?;
    Ok(newest.path().join("bin"))
}

fn probe(url: &str) -> Result<()> {
    run(newest_programs()?.join("psql"), |command| {
        command.args(["--no-psqlrc", "--quiet", "--command", "select 1", url]);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_committed_is_there_after_a_kill() -> Result<()> {
        let mut server = Postgres::start().await?;
        let query = |text: &str| {
            run(newest_programs()?.join("psql"), |command| {
                command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--command", text, server.url()]);
            })
        };
        query("create table kept as select 42 as answer")?;
        server.kill()?;
        assert!(probe(server.url()).is_err());
        server.restart().await?;
        let url = server.url().to_owned();
        let answer = run(newest_programs()?.join("psql"), |command| {
            command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--command", "select answer from kept", &url]);
        })?;
        assert_eq!(answer.trim(), "42");
        Ok(())
    }
}
