//! Local clusters. The scripts in `tests/cluster` do the work; here is which cluster is where.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::shell::{Run, program, step};
use crate::{checkout, images, paths, tools};

/// The local clusters. They can be up at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cluster {
    /// For `cargo xtask demo`.
    Demo,
    /// For the end-to-end tests.
    Test,
}

impl Cluster {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::Test => "test",
        }
    }

    const fn subnet(self) -> &'static str {
        match self {
            Self::Demo => "10.251.1",
            Self::Test => "10.251.2",
        }
    }

    pub(crate) fn state(self) -> PathBuf {
        // Without a home there is no cache either, and the tools would have failed before.
        paths::cache().unwrap_or_default().join(self.name())
    }

    pub(crate) fn kubeconfig(self) -> PathBuf {
        self.state().join("admin.conf")
    }

    /// What the scripts of `tests/cluster` are told about this cluster.
    pub(crate) fn variables(self) -> Result<[(&'static str, OsString); 4]> {
        Ok([
            ("RIVVEN_BIN", paths::cache()?.join("bin").into()),
            ("RIVVEN_STATE", self.state().into()),
            ("RIVVEN_CLUSTER", self.name().into()),
            ("RIVVEN_SUBNET", self.subnet().into()),
        ])
    }

    /// A script of `tests/cluster`, told about this cluster.
    pub(crate) fn script(self, name: &str) -> Result<Run> {
        let script = program(paths::root().join("tests/cluster").join(name));
        Ok(self.variables()?.iter().fold(script, |script, (name, value)| script.env(name, value)))
    }

    /// `kubectl` on this cluster.
    pub(crate) fn kubectl(self) -> Run {
        program(paths::cache().unwrap_or_default().join("bin/kubectl")).env("KUBECONFIG", self.kubeconfig())
    }

    /// Written last: a start that was killed half-way leaves none.
    fn stamp(self) -> PathBuf {
        self.state().join("run/up")
    }

    pub(crate) fn is_up(self) -> bool {
        self.stamp().exists() && self.kubectl().args(["get", "--raw", "/readyz", "--request-timeout=3s"]).succeeds()
    }

    /// Starts it anew, whatever a run before left behind.
    fn up(self) -> Result<()> {
        tools::for_cluster()?;
        step(&format!("starting Kubernetes {} as cluster {}", tools::KUBERNETES, self.name()), || {
            self.script("down.sh")?.quiet()?;
            self.script("up.sh")?.quiet()?;
            self.start_volumes()?;
            std::fs::write(self.stamp(), "")?;
            Ok(())
        })
    }

    /// The cluster with the images of the brokers and of the operator; started if it is not up.
    pub(crate) fn up_with_images(self) -> Result<()> {
        let (broker, test_broker) = (tools::broker()?, checkout::built("rivvend")?);
        let operator = checkout::built("rivven-operator")?;
        if self.is_up() {
            println!("==> cluster {} is up already", self.name());
        } else {
            self.up()?;
        }
        images::load(self, &images::broker(), "/app", &broker)?;
        images::load(self, &images::test_broker(), "/app", &test_broker)?;
        images::load(self, &images::operator(), "/rivven-operator", &operator)
    }

    /// Ends the only container of a pod as nothing else does: SIGKILL.
    pub(crate) fn kill(self, pod: &str) -> Result<()> {
        let id = self.kubectl().args(["get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].containerID}"]);
        self.script("kill.sh")?.arg(id.read()?.trim()).quiet()
    }

    /// The volume provisioner goes on beside the cluster until `down`.
    fn start_volumes(self) -> Result<()> {
        let log = std::fs::File::create(self.state().join("log/volumes.log"))?;
        // A copy, as the next build replaces the file that runs.
        let copy = self.state().join("run/volumes");
        std::fs::copy(checkout::built("volumes")?, &copy)?;
        let mut daemon = program("setsid").arg(&copy).arg(self.state()).command();
        let child = daemon
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("the volume provisioner")?;
        std::fs::write(self.state().join("run/volumes.pid"), child.id().to_string())?;
        Ok(())
    }

    /// Removes it.
    pub(crate) fn down(self) -> Result<()> {
        step(&format!("removing cluster {}", self.name()), || self.script("down.sh")?.quiet())
    }
}
