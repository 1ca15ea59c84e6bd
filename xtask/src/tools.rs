//! What a bare machine lacks: Debian packages, Kubernetes binaries from pinned Go modules, the released broker from its
//! published crate. Each is made once and kept; what is kept is keyed by what it was made from.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::paths;
use crate::shell::{program, step};

/// The version of Kubernetes that `tests/cluster/modules/kubernetes` pins.
pub(crate) const KUBERNETES: &str = "1.34.4";
/// The oldest Kubernetes that is supported: `tests/cluster/modules/kubernetes-1.28` pins it.
pub(crate) const OLDEST: &str = "1.28.15";
/// The released broker, and the worker of the same release.
pub(crate) const BROKER: &str = "0.0.22";
/// The licence and dependency checker.
const CARGO_DENY: &str = "0.20.2";
/// Static binaries for images that hold nothing else.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";
pub(crate) const STATIC: &str = "-C target-feature=+crt-static";

/// Debian package and a file by which it is known to be there.
const PACKAGES: &[(&str, &str)] = &[
    ("containerd", "/usr/bin/containerd"),
    ("runc", "/usr/sbin/runc"),
    ("containernetworking-plugins", "/usr/lib/cni/bridge"),
    ("iptables", "/usr/sbin/iptables"),
    ("iproute2", "/usr/sbin/ip"),
    ("conntrack", "/usr/sbin/conntrack"),
    ("umoci", "/usr/bin/umoci"),
    ("skopeo", "/usr/bin/skopeo"),
    ("catatonit", "/usr/bin/catatonit"),
    ("openssl", "/usr/bin/openssl"),
    ("postgresql", "/usr/bin/psql"),
    ("xfsprogs", "/usr/sbin/mkfs.xfs"),
    ("util-linux", "/usr/sbin/losetup"),
];

/// The Go module of everything that the local Kubernetes runs. One for all: what two of them are made of then has one
/// version, and is compiled once.
const LOCAL: &str = "kubernetes";

/// One tool is built at a time: a second thread that asks for the same one waits, and finds it there.
static BUILDING: Mutex<()> = Mutex::new(());

/// Builds what later parts of the tests need beside the first ones, with what these leave of the processors. What fails
/// fails again, and is told, where it is needed.
pub(crate) fn in_advance() {
    std::thread::spawn(|| {
        // The priority of this thread, which programs that it starts inherit.
        let thread = fs::read_link("/proc/thread-self").unwrap_or_default();
        if let Some(thread) = thread.file_name() {
            let _ = program("renice").args(["-n", "19", "-p"]).arg(thread).quiet();
        }
        let _ = helm();
        let _ = broker();
        let _ = for_cluster();
        let _ = connect();
    });
}

/// Everything that a local Kubernetes needs.
pub(crate) fn for_cluster() -> Result<PathBuf> {
    packages()?;
    let bin = paths::cache()?.join("bin");
    fs::create_dir_all(&bin)?;
    let names = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"];
    let packages: Vec<String> = names.iter().map(|name| format!("k8s.io/kubernetes/cmd/{name}")).collect();
    let version = "k8s.io/component-base/version";
    let flags = format!("-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor=1 -X {version}.gitMinor=34");
    go(&bin, LOCAL, LOCAL, &format!("Kubernetes {KUBERNETES}, about 5 minutes the first time"), &flags, &packages)?;
    etcd(&bin)?;
    go(&bin, LOCAL, "coredns", "CoreDNS", "-s -w", &["./coredns".to_owned()])?;
    helm()?;
    cert_manager(&bin)?;
    Ok(bin)
}

fn etcd(bin: &Path) -> Result<bool> {
    go(bin, LOCAL, "etcd", "etcd", "-s -w", &["go.etcd.io/etcd/server/v3".to_owned()])
}

/// cert-manager's controllers, and its CRDs, which stand in its module.
fn cert_manager(bin: &Path) -> Result<()> {
    const MODULE: &str = "github.com/cert-manager/cert-manager";
    let built = go(bin, LOCAL, "cert-manager", "cert-manager", "-s -w", &["./cert-manager".to_owned()])?;
    let crds = bin.join("cert-manager.yaml");
    if !built && crds.exists() {
        return Ok(());
    }
    let module = paths::root().join("tests/cluster/modules").join(LOCAL);
    let source = program("go").args(["list", "-m", "-f", "{{.Dir}}", MODULE]).dir(module).read()?;
    let folder = Path::new(source.trim()).join("deploy/crds");
    let mut text = String::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            text.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(fs::write(crds, text)?)
}

/// The API server of the oldest Kubernetes that is supported, and etcd.
pub(crate) fn oldest() -> Result<(PathBuf, PathBuf)> {
    let bin = paths::cache()?.join("bin");
    fs::create_dir_all(&bin)?;
    let name = "kubernetes-1.28";
    let package = "k8s.io/kubernetes/cmd/kube-apiserver".to_owned();
    let version = "k8s.io/component-base/version";
    let flags = format!("-s -w -X {version}.gitVersion=v{OLDEST} -X {version}.gitMajor=1 -X {version}.gitMinor=28");
    let what = format!("the API server of Kubernetes {OLDEST}, about 4 minutes the first time");
    go(&bin, name, name, &what, &flags, &[package])?;
    etcd(&bin)?;
    Ok((bin.join("etcd"), bin.join(name)))
}

/// Helm.
pub(crate) fn helm() -> Result<PathBuf> {
    let bin = paths::cache()?.join("bin");
    fs::create_dir_all(&bin)?;
    go(&bin, LOCAL, "helm", "Helm", "-s -w", &["helm.sh/helm/v3/cmd/helm".to_owned()])?;
    Ok(bin.join("helm"))
}

fn packages() -> Result<()> {
    let _building = BUILDING.lock();
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !program("id").arg("-u").read()?.trim().eq("0") {
        bail!("these Debian packages are missing, and only root can install them: {}", missing.join(" "));
    }
    step(&format!("installing Debian packages: {}", missing.join(" ")), || {
        program("apt-get").args(["update", "-qq"]).quiet()?;
        let install = program("apt-get").args(["install", "-y", "-qq", "--no-install-recommends"]).args(&missing);
        install.env("DEBIAN_FRONTEND", "noninteractive").quiet()
    })
}

/// Builds commands of a pinned Go module into `bin`, unless they were built from the same pins before. Whether it built.
/// A single command gets the `name`, as the last element of its package may be a version.
fn go(bin: &Path, module: &str, name: &str, what: &str, flags: &str, packages: &[String]) -> Result<bool> {
    let dir = paths::root().join("tests/cluster/modules").join(module);
    let stamp = bin.join(format!(".{name}"));
    let mut made_from = vec![fs::read(dir.join("go.mod"))?, fs::read(dir.join("go.sum"))?];
    for package in packages.iter().filter(|package| package.starts_with("./")) {
        made_from.push(fs::read(dir.join(package).join("main.go"))?);
    }
    made_from.extend([flags.into(), packages.join(" ").into()]);
    let _building = BUILDING.lock();
    let key = digest(&made_from.iter().map(Vec::as_slice).collect::<Vec<_>>());
    if fs::read_to_string(&stamp).is_ok_and(|built| built == key) {
        return Ok(false);
    }
    if !program("go").arg("version").succeeds() {
        bail!("Go is needed to build {what}: install Go 1.26 or newer");
    }
    step(&format!("building {what}"), || {
        let output =
            if packages.len() == 1 { bin.join(name).into_os_string() } else { format!("{}/", bin.display()).into() };
        // What a debugger would read is not linked (-w), so it is not compiled either: a quarter of the time.
        let build = program("go").args(["build", "-buildvcs=false", "-gcflags=all=-dwarf=false", "-ldflags", flags]);
        build.arg("-o").arg(output).args(packages).env("CGO_ENABLED", "0").dir(&dir).quiet()
    })?;
    fs::write(stamp, key)?;
    Ok(true)
}

/// The released broker, static, from its published crate.
pub(crate) fn broker() -> Result<PathBuf> {
    let _building = BUILDING.lock();
    let root = paths::cache()?.join("broker");
    let binary = root.join("bin/rivvend");
    if program(&binary).arg("--version").read().is_ok_and(|version| version.trim().ends_with(BROKER)) {
        return Ok(binary);
    }
    step(&format!("building the released broker {BROKER}, about 8 minutes the first time"), || {
        released("rivvend", &root, &[])
    })?;
    Ok(binary)
}

/// The released worker of connects, static, from its published crate. Without the warehouses and clouds that no test
/// reaches; it does not compile without both databases (0.0.22).
pub(crate) fn connect() -> Result<PathBuf> {
    let _building = BUILDING.lock();
    let root = paths::cache()?.join("connect");
    let binary = root.join("bin/rivven-connect");
    if program(&binary).arg("--version").read().is_ok_and(|version| version.trim().ends_with(BROKER)) {
        return Ok(binary);
    }
    step(&format!("building the released worker {BROKER}, about 12 minutes the first time"), || {
        released("rivven-connect", &root, &["--no-default-features", "--features", "http,postgres,mysql,mqtt"])
    })?;
    Ok(binary)
}

/// Installs a released program, static, under a folder of its own.
fn released(package: &str, root: &Path, features: &[&str]) -> Result<()> {
    let install = program("cargo").args(["install", package, "--version", BROKER, "--locked", "--force"]);
    let install = install.args(features).args(["--target", TARGET, "--root"]).arg(root);
    // One folder for both, as they share most of what they are made of.
    let target = paths::cache()?.join("released");
    // They are not what is measured, and minutes are saved.
    let install = install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    install.env("RUSTFLAGS", STATIC).env("CARGO_TARGET_DIR", target).dir("/").quiet()
}

/// `cargo deny`.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    let root = paths::cache()?.join("cargo-deny");
    let binary = root.join("bin/cargo-deny");
    if program(&binary).arg("--version").read().is_ok_and(|version| version.trim().ends_with(CARGO_DENY)) {
        return Ok(binary);
    }
    step("building cargo-deny, about 2 minutes the first time", || {
        // Not optimized: its own profile links the whole of it as one, for a check that takes seconds either way.
        let install = program("cargo")
            .args(["install", "cargo-deny", "--version", CARGO_DENY, "--locked", "--force", "--debug", "--root"])
            .arg(&root);
        let install = install.env("CARGO_PROFILE_DEV_DEBUG", "0");
        install.env("CARGO_TARGET_DIR", root.join("target")).dir("/").quiet()
    })?;
    Ok(binary)
}

/// A short hash.
pub(crate) fn digest(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
        hasher.update([0]);
    }
    hasher.finalize().iter().take(10).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The hash of a file's content.
pub(crate) fn file_digest(path: &Path) -> Result<String> {
    Ok(digest(&[&fs::read(path).with_context(|| path.display().to_string())?]))
}
