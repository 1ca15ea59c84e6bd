//! Debian's PostgreSQL with logical replication: a server of one test, where pods reach it.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::wait;

/// The server, and where it keeps everything. It ends with the test.
pub struct Postgres {
    folder: TempDir,
    programs: PathBuf,
    user: u32,
    /// Where it listens, on every address of this machine.
    pub port: u16,
    server: Option<Child>,
}

impl Postgres {
    /// Makes a server of which `password` is the superuser's, `postgres`.
    pub async fn start(password: &str) -> Result<Self> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").context("Debian's package postgresql")?;
        let programs =
            versions.flatten().map(|entry| entry.path().join("bin")).max().context("a version of PostgreSQL")?;
        // It refuses to run as root.
        let id = Command::new("id").args(["-u", "postgres"]).output().await?;
        let user = String::from_utf8_lossy(&id.stdout).trim().parse().context("the user postgres")?;
        let folder = TempDir::new()?;
        chown(folder.path(), Some(user), None)?;
        let secret = folder.path().join("password");
        std::fs::write(&secret, password)?;
        chown(&secret, Some(user), None)?;
        let port = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port();
        let mut this = Self { folder, programs, user, port, server: None };
        let data = this.data();
        let made = this
            .program("initdb")
            .args(["--username=postgres", "--auth=scram-sha-256", "--no-sync", "--pwfile"])
            .arg(&secret)
            .arg(&data)
            .output()
            .await?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let rules =
            "local all all trust\nhost all all 0.0.0.0/0 scram-sha-256\nhost replication all 0.0.0.0/0 scram-sha-256\n";
        std::fs::write(data.join("pg_hba.conf"), rules)?;
        let server = this
            .program("postgres")
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(this.folder.path())
            .args(["-p", &port.to_string(), "-c", "listen_addresses=*", "-c", "wal_level=logical", "-c", "fsync=off"])
            .spawn()?;
        this.server = Some(server);
        wait::until("PostgreSQL", || async { Ok(this.sql("SELECT 1").await.ok()) }).await?;
        Ok(this)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.uid(self.user).current_dir("/").env_clear().env("LC_ALL", "C").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs statements, and gives what the last one answers.
    pub async fn sql(&self, statements: &str) -> Result<String> {
        let socket: &Path = self.folder.path();
        let port = self.port.to_string();
        let psql = self
            .program("psql")
            .args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-p", &port])
            .arg("-h")
            .arg(socket)
            .args(["-c", statements])
            .output()
            .await?;
        ensure!(psql.status.success(), "{}", String::from_utf8_lossy(&psql.stderr));
        Ok(String::from_utf8_lossy(&psql.stdout).trim().to_owned())
    }
}
