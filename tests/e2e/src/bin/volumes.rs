//! A volume provisioner for local clusters: to the operator it behaves like a storage driver that can expand.
//!
//! Each claim gets a sparse XFS image on a loop device, mounted under the cluster's state, as a `local` volume, for which
//! kubelet applies `fsGroup`. Growing a claim grows image, device and file system, then tells the capacity.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Config, ResourceExt};
use kube_quantity::ParsedQuantity;
use serde_json::json;

const CLASS: &str = "rivven-local";
const PROVISIONER: &str = "rivven.io/local";
/// The smallest file system that XFS makes.
const LEAST: u64 = 300 << 20;
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

struct Provisioner {
    client: Client,
    folder: PathBuf,
    /// Between finding a free loop device and taking it, nobody else may look for one.
    devices: tokio::sync::Mutex<()>,
}

/// Answers claims until the process is ended.
#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let state = PathBuf::from(std::env::args().nth(1).context("the state folder of the cluster")?);
    let kubeconfig = Kubeconfig::read_from(state.join("admin.conf"))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    let claims = Api::<PersistentVolumeClaim>::all(client.clone());
    let volumes = Api::<PersistentVolume>::all(client.clone());
    let provisioner =
        Arc::new(Provisioner { client, folder: state.join("volumes"), devices: tokio::sync::Mutex::default() });
    Controller::new(claims, kube::runtime::watcher::Config::default())
        .watches(volumes, kube::runtime::watcher::Config::default(), |volume| {
            let claim = volume.spec.and_then(|spec| spec.claim_ref)?;
            Some(ObjectRef::new(&claim.name?).within(&claim.namespace?))
        })
        .run(claim, |_, _, _| Action::requeue(RETRY), Arc::clone(&provisioner))
        .for_each(|outcome| {
            if let Err(error) = outcome {
                eprintln!("{error}");
            }
            let provisioner = Arc::clone(&provisioner);
            async move {
                if let Err(error) = reclaim(&provisioner).await {
                    eprintln!("{error:#}");
                }
            }
        })
        .await;
    Ok(())
}

/// Runs a program of the machine and gives what it printed.
fn run(name: &str, args: &[&OsStr]) -> Result<String> {
    let output = Command::new(name).args(args).output().with_context(|| format!("{name} cannot be started"))?;
    if !output.status.success() {
        bail!("{name} failed: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn mounted(mount: &Path) -> bool {
    run("mountpoint", &["-q".as_ref(), mount.as_ref()]).is_ok()
}

fn device_of(mount: &Path) -> Result<String> {
    run("findmnt", &["-n".as_ref(), "-o".as_ref(), "SOURCE".as_ref(), mount.as_ref()])
}

#[derive(Debug)]
struct Failure(anyhow::Error);
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.0)
    }
}
impl std::error::Error for Failure {}

async fn claim(claim: Arc<PersistentVolumeClaim>, provisioner: Arc<Provisioner>) -> Result<Action, Failure> {
    serve_claim(&claim, &provisioner).await.map_err(Failure)
}

async fn serve_claim(claim: &PersistentVolumeClaim, provisioner: &Provisioner) -> Result<Action> {
    let Some(spec) = &claim.spec else { return Ok(Action::await_change()) };
    if spec.storage_class_name.as_deref() != Some(CLASS) || claim.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    let wanted = requests.and_then(|r| r.get("storage")).and_then(|q| bytes(&q.0)).context("a claim without a size")?;
    match claim.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Bound") => {
            let has = claim
                .status
                .as_ref()
                .and_then(|s| s.capacity.as_ref())
                .and_then(|c| c.get("storage"))
                .and_then(|q| bytes(&q.0));
            if has.is_some_and(|has| has < wanted) {
                grow(claim, provisioner, wanted).await?;
            }
        }
        // WaitForFirstConsumer: the scheduler names the node once a pod needs the volume.
        _ if claim.annotations().contains_key("volume.kubernetes.io/selected-node") && spec.volume_name.is_none() => {
            provision(claim, provisioner, wanted).await?;
        }
        _ => {}
    }
    Ok(Action::await_change())
}

fn name_of(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.uid().unwrap_or_default())
}

async fn provision(claim: &PersistentVolumeClaim, provisioner: &Provisioner, size: u64) -> Result<()> {
    let name = name_of(claim);
    let volumes = Api::<PersistentVolume>::all(provisioner.client.clone());
    if volumes.get_opt(&name).await?.is_some() {
        return Ok(());
    }
    let (image, mount) = (provisioner.folder.join(format!("{name}.img")), provisioner.folder.join(&name));
    fs::create_dir_all(&mount)?;
    // A retry after the mount, because the volume could not be announced, must not write over what is mounted.
    if !mounted(&mount) {
        fs::File::create(&image)?.set_len(size.max(LEAST))?;
        run("mkfs.xfs", &["-q".as_ref(), "-K".as_ref(), image.as_ref()])?;
        let _one_at_a_time = provisioner.devices.lock().await;
        let device = free_device()?;
        run("losetup", &[device.as_ref(), image.as_ref()])?;
        run("mount", &[device.as_ref(), mount.as_ref()])?;
    }
    let volume = serde_json::from_value(json!({
        "metadata": { "name": name, "annotations": { "pv.kubernetes.io/provisioned-by": PROVISIONER } },
        "spec": {
            "capacity": { "storage": size.to_string() },
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": CLASS,
            "local": { "path": mount },
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "name": claim.name_any(), "namespace": claim.namespace(), "uid": claim.uid(),
            },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [
                // Every node is on this machine.
                { "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "Exists" }] },
            ] } },
        },
    }))?;
    volumes.create(&PostParams::default(), &volume).await?;
    Ok(())
}

async fn grow(claim: &PersistentVolumeClaim, provisioner: &Provisioner, size: u64) -> Result<()> {
    let name = name_of(claim);
    let (image, mount) = (provisioner.folder.join(format!("{name}.img")), provisioner.folder.join(&name));
    fs::OpenOptions::new().write(true).open(&image)?.set_len(size.max(LEAST))?;
    run("losetup", &["-c".as_ref(), device_of(&mount)?.as_ref()])?;
    run("xfs_growfs", &[mount.as_ref()])?;
    let capacity = BTreeMap::from([("storage", size.to_string())]);
    let patch = Patch::Merge(json!({ "spec": { "capacity": capacity } }));
    Api::<PersistentVolume>::all(provisioner.client.clone()).patch(&name, &PatchParams::default(), &patch).await?;
    let patch = Patch::Merge(json!({ "status": { "capacity": capacity, "conditions": null } }));
    let claims =
        Api::<PersistentVolumeClaim>::namespaced(provisioner.client.clone(), &claim.namespace().unwrap_or_default());
    claims.patch_status(&claim.name_any(), &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Takes away the volumes whose claims are gone.
async fn reclaim(provisioner: &Provisioner) -> Result<()> {
    let volumes = Api::<PersistentVolume>::all(provisioner.client.clone());
    for volume in volumes.list(&kube::api::ListParams::default()).await? {
        let ours = volume.annotations().get("pv.kubernetes.io/provisioned-by").map(String::as_str) == Some(PROVISIONER);
        let released = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Released");
        if !ours || !released {
            continue;
        }
        let name = volume.name_any();
        let mount = provisioner.folder.join(&name);
        if mounted(&mount) {
            let device = device_of(&mount)?;
            run("umount", &[mount.as_ref()])?;
            run("losetup", &["-d".as_ref(), device.as_ref()])?;
        }
        if mount.exists() {
            fs::remove_dir(&mount)?;
            fs::remove_file(provisioner.folder.join(format!("{name}.img")))?;
        }
        volumes.delete(&name, &DeleteParams::default()).await?;
    }
    Ok(())
}

/// A free loop device. The kernel names one; its node may have to be made where nobody makes nodes.
fn free_device() -> Result<String> {
    let device = run("losetup", &["-f".as_ref()])?;
    if !Path::new(&device).exists() {
        let number = device.trim_start_matches("/dev/loop");
        run("mknod", &[device.as_ref(), "b".as_ref(), "7".as_ref(), number.as_ref()])?;
    }
    Ok(device)
}

fn bytes(quantity: &str) -> Option<u64> {
    ParsedQuantity::try_from(quantity).ok()?.to_bytes_u64()
}
