//! The main job, on a bare machine: a Kubernetes, the operator from its chart, a cluster with a topic, a record written
//! and read back; then three brokers that are one cluster, and a producer that goes on while one is killed. All stays up.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::shell::{program, step};
use crate::{checkout, images, paths, tools};

const CLUSTER: Cluster = Cluster::Demo;
const SAMPLE: &str = "deploy/samples/quickstart.yaml";
const RECORD: &str = "hello from the operator's demo";
/// Three brokers, which no release can be: these are the test broker.
const CLUSTERED: &str = "tests/cluster/clustered.yaml";
const PRODUCER: &str = "tests/cluster/producer.yaml";
const KILLED: &str = "rivven-clustered-1";

pub(crate) fn run() -> Result<()> {
    CLUSTER.up_with_images()?;
    images::load(CLUSTER, &images::load_generator(), "/load", &checkout::built("load")?)?;
    install().inspect_err(|_| diagnose())?;
    let watches = [watch("rivvenclusters")?, watch("rivventopics")?];
    let done = one_broker().and_then(|()| three_brokers()).inspect_err(|_| diagnose());
    for mut watch in watches {
        // A watch that ended by itself is no reason to hide how the demo went.
        let _ = watch.kill().and_then(|()| watch.wait());
    }
    done?;
    let kubeconfig = CLUSTER.kubeconfig();
    println!(
        "\nThe cluster stays up.\n\n  export KUBECONFIG={}\n  kubectl get rivven -A\n  kubectl describe rivvencluster quickstart\n  kubectl get rivvenclusters -w\n\nTo remove it:\n\n  cargo xtask down\n",
        kubeconfig.display()
    );
    Ok(())
}

/// `helm upgrade --install`, so that the demo can be run again on the cluster it left.
fn install() -> Result<()> {
    step("installing the operator from charts/rivven-operator", || {
        // The tag is the same after a rebuild; an annotation with the binary's hash makes the pod start anew then.
        let hash = tools::file_digest(&checkout::path("rivven-operator"))?;
        let helm = program(tools::helm()?)
            .args(["upgrade", "--install", "rivven-operator"])
            .arg(paths::root().join("charts/rivven-operator"));
        let helm = helm.args(["--namespace", "rivven-system", "--create-namespace", "--set", "image.tag=dev"]);
        let helm = helm.arg("--set").arg(format!("podAnnotations.rivven\\.io/binary={hash}"));
        helm.args(["--wait", "--timeout", "2m"]).env("KUBECONFIG", CLUSTER.kubeconfig()).quiet()
    })
}

/// The released broker: a cluster of one, a topic, a record.
fn one_broker() -> Result<()> {
    println!("==> applying {SAMPLE}; this is what kubectl get -w shows:");
    apply(SAMPLE, ["rivvencluster/quickstart", "rivventopic/orders"])?;
    exchange()
}

/// Three brokers that are one cluster, and what a producer notices of a broker that is killed.
fn three_brokers() -> Result<()> {
    println!("==> applying {CLUSTERED}: three brokers of the test broker, as no released one can be a cluster");
    apply(CLUSTERED, ["rivvencluster/clustered", "rivventopic/payments"])?;
    CLUSTER.kubectl().args(["delete", "pod", "producer", "--ignore-not-found"]).quiet()?;
    CLUSTER.kubectl().args(["apply", "-f"]).arg(paths::root().join(PRODUCER)).quiet()?;
    wait("pod/producer", "{.status.phase}=Running")?;
    println!("==> a producer writes to topic payments; {KILLED} is killed (SIGKILL)");
    CLUSTER.kill(KILLED)?;
    wait("rivvencluster/clustered", "{.status.phase}=Degraded")?;
    wait("rivvencluster/clustered", "{.status.phase}=Ready")?;
    wait("pod/producer", "{.status.containerStatuses[0].state.terminated.reason}")?;
    let report = CLUSTER.kubectl().args(["logs", "producer"]).read()?;
    let report: Value = serde_json::from_str(&report).context("the producer's report")?;
    println!(
        "==> {} records acknowledged, {} of them lost; the longest a partition was silent: {} ms",
        report["acknowledged"], report["lost"], report["partition_ms"]
    );
    if report["lost"] != 0 {
        bail!("records were lost");
    }
    Ok(())
}

fn apply(file: &str, objects: [&str; 2]) -> Result<()> {
    CLUSTER.kubectl().args(["apply", "-f"]).arg(paths::root().join(file)).quiet()?;
    objects.into_iter().try_for_each(|object| wait(object, "{.status.phase}=Ready"))
}

fn wait(object: &str, holds: &str) -> Result<()> {
    CLUSTER.kubectl().args(["wait", object, &format!("--for=jsonpath={holds}"), "--timeout=180s"]).quiet()
}

/// `kubectl get -w`, printed line by line.
fn watch(kind: &str) -> Result<Child> {
    let mut kubectl = CLUSTER.kubectl().args(["get", kind, "-w"]).command();
    let mut child = kubectl.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let output = BufReader::new(child.stdout.take().context("the output of kubectl")?);
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            println!("    {line}");
        }
    });
    Ok(child)
}

/// Writes a record and reads it back with the published client, through a port-forward.
fn exchange() -> Result<()> {
    let mut kubectl = CLUSTER.kubectl().args(["port-forward", "service/rivven-quickstart", ":9292"]).command();
    let mut forward = kubectl.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    // Held until the end: kubectl says a line for each connection, and would die of a closed pipe.
    let mut output = BufReader::new(forward.stdout.take().context("the output of kubectl")?);
    let outcome = (|| {
        let mut line = String::new();
        output.read_line(&mut line)?;
        let port =
            line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).context("kubectl named no port")?;
        program(checkout::built("exchange")?).args([&format!("127.0.0.1:{port}"), "orders", RECORD]).show()
    })();
    forward.kill()?;
    forward.wait()?;
    outcome
}

/// What a person would look at first.
fn diagnose() {
    for args in [
        &["get", "pods,rivven", "-A", "-o", "wide"][..],
        &["describe", "rivvenclusters"],
        &["logs", "producer"],
        &["-n", "rivven-system", "logs", "deployment/rivven-operator", "--tail=40"],
    ] {
        eprintln!("--- kubectl {}", args.join(" "));
        // Best effort: the failure that led here is what is reported.
        let _ = CLUSTER.kubectl().args(args).show();
    }
}
