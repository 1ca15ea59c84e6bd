//! Running other programs, and telling what takes time.

use std::ffi::OsStr;
use std::io::{IsTerminal, Write};
use std::process::{Command, Output};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// A program that is about to run.
pub(crate) struct Run(Command);

/// A program by name.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Run {
    Run(Command::new(name))
}

impl Run {
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.0.arg(arg);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.0.args(args);
        self
    }

    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(key, value);
        self
    }

    pub(crate) fn dir(mut self, dir: impl AsRef<std::path::Path>) -> Self {
        self.0.current_dir(dir);
        self
    }

    /// Runs it with this program's own output.
    pub(crate) fn show(mut self) -> Result<()> {
        let status =
            self.0.status().with_context(|| format!("{} cannot be started", self.0.get_program().display()))?;
        if !status.success() {
            bail!("{} failed: {status}", self.line());
        }
        Ok(())
    }

    /// Runs it and gives what it printed; its words are told only if it fails.
    pub(crate) fn read(mut self) -> Result<String> {
        let output = self.output()?;
        if !output.status.success() {
            bail!("{} failed: {}\n{}{}", self.line(), output.status, text(&output.stdout), text(&output.stderr));
        }
        Ok(text(&output.stdout))
    }

    /// Runs it quietly.
    pub(crate) fn quiet(self) -> Result<()> {
        self.read().map(drop)
    }

    /// Whether it ends well.
    pub(crate) fn succeeds(mut self) -> bool {
        self.output().is_ok_and(|output| output.status.success())
    }

    /// The command itself.
    pub(crate) fn command(self) -> Command {
        self.0
    }

    fn output(&mut self) -> Result<Output> {
        self.0.output().with_context(|| format!("{} cannot be started", self.0.get_program().display()))
    }

    fn line(&self) -> String {
        let words = std::iter::once(self.0.get_program()).chain(self.0.get_args());
        words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Does something that takes time, and says so: what before, how long after.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    print!("==> {what} … ");
    if !std::io::stdout().is_terminal() {
        println!();
    }
    std::io::stdout().flush()?;
    let done = work().with_context(|| format!("{what} failed"))?;
    println!("    done in {:.1} s", began.elapsed().as_secs_f64());
    Ok(done)
}
