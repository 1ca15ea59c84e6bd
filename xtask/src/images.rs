//! From-scratch images of static binaries, loaded into a cluster's containerd.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::shell::step;
use crate::tools;

/// The user of every image, as the released images have it.
const USER: &str = "65532:65532";

/// The released broker's image.
pub(crate) fn broker() -> String {
    format!("ghcr.io/hupe1980/rivven:{}", tools::BROKER)
}

/// The test broker's image, of this checkout. Its tag is the version it reports.
pub(crate) fn test_broker() -> String {
    "localhost/rivven-test-broker:0.1.0".to_owned()
}

/// The released worker's image, built without what no test reaches.
pub(crate) fn connect() -> String {
    format!("localhost/rivven-connect:{}", tools::BROKER)
}

/// The load generator's image, of this checkout.
pub(crate) fn load_generator() -> String {
    "localhost/rivven-load:dev".to_owned()
}

/// The operator's image, of this checkout.
pub(crate) fn operator() -> String {
    "ghcr.io/hupe1980/rivven-operator:dev".to_owned()
}

/// Loads an image that holds one binary, unless the cluster has it with this content.
pub(crate) fn load(cluster: Cluster, image: &str, entrypoint: &str, binary: &Path) -> Result<()> {
    let digest = tools::file_digest(binary)?;
    let stamp = cluster.state().join("run").join(format!("image-{image}").replace(['/', ':'], "-"));
    if fs::read_to_string(&stamp).is_ok_and(|loaded| loaded == digest) {
        return Ok(());
    }
    step(&format!("loading image {image}"), || {
        let file = format!("{}={entrypoint}", binary.display());
        cluster.script("image.sh")?.args([image, entrypoint, USER, &file]).quiet()
    })?;
    fs::write(stamp, digest)?;
    Ok(())
}
