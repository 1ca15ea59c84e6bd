//! The main job, on a bare machine: a Kubernetes, the operator from its chart, a cluster with a topic, a record written
//! and read back. The cluster stays up.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rivven_client::Client;

use crate::cluster::Cluster;
use crate::shell::{program, step};
use crate::{paths, tools};

const CLUSTER: Cluster = Cluster::Demo;
const SAMPLE: &str = "deploy/samples/quickstart.yaml";
const RECORD: &str = "hello from the operator's demo";

pub(crate) fn run() -> Result<()> {
    CLUSTER.up_with_images()?;
    install().inspect_err(|_| diagnose())?;
    let watches = [watch("rivvenclusters")?, watch("rivventopics")?];
    println!("==> applying {SAMPLE}; this is what kubectl get -w shows:");
    let done = apply().inspect_err(|_| diagnose());
    for mut watch in watches {
        // A watch that ended by itself is no reason to hide how the demo went.
        let _ = watch.kill().and_then(|()| watch.wait());
    }
    done?;
    exchange().inspect_err(|_| diagnose())?;
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
        let hash = tools::file_digest(&tools::operator_binary()?)?;
        let helm = program(tools::helm()?)
            .args(["upgrade", "--install", "rivven-operator"])
            .arg(paths::root().join("charts/rivven-operator"));
        let helm = helm.args(["--namespace", "rivven-system", "--create-namespace", "--set", "image.tag=dev"]);
        let helm = helm.arg("--set").arg(format!("podAnnotations.rivven\\.io/binary={hash}"));
        helm.args(["--wait", "--timeout", "2m"]).env("KUBECONFIG", CLUSTER.kubeconfig()).quiet()
    })
}

fn apply() -> Result<()> {
    CLUSTER.kubectl().args(["apply", "-f"]).arg(paths::root().join(SAMPLE)).quiet()?;
    for object in ["rivvencluster/quickstart", "rivventopic/orders"] {
        CLUSTER.kubectl().args(["wait", object, "--for=jsonpath={.status.phase}=Ready", "--timeout=180s"]).quiet()?;
    }
    Ok(())
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
        let address = format!("127.0.0.1:{port}");
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(write_and_read(&address))
    })();
    forward.kill()?;
    forward.wait()?;
    outcome
}

async fn write_and_read(address: &str) -> Result<()> {
    let mut client = Client::connect(address).await?;
    let offset = client.publish_to_partition("orders", 0, None::<&[u8]>, RECORD.as_bytes()).await?;
    println!("==> wrote to topic orders, partition 0, offset {offset}: {RECORD}");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let records = client.consume("orders", 0, offset, 1).await?;
        if let Some(record) = records.first() {
            let text = String::from_utf8_lossy(&record.value).into_owned();
            println!("==> read  from topic orders, partition 0, offset {}: {text}", record.offset);
            if text != RECORD {
                bail!("another record was read than was written");
            }
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the record could not be read back");
        }
    }
}

/// What a person would look at first.
fn diagnose() {
    for args in [
        &["get", "pods,rivven", "-A", "-o", "wide"][..],
        &["describe", "rivvencluster", "quickstart"],
        &["-n", "rivven-system", "logs", "deployment/rivven-operator", "--tail=40"],
    ] {
        eprintln!("--- kubectl {}", args.join(" "));
        // Best effort: the failure that led here is what is reported.
        let _ = CLUSTER.kubectl().args(args).show();
    }
}
