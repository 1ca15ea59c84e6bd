//! What each version of the broker can do, in one table.
//!
//! The first column was observed on the released 0.0.22 (and read in its source), the second is what the project's
//! documents describe. A build of one's own is described by the annotation [`ANNOTATION`].

use rivven_fsm::cluster::Capabilities;
use semver::Version;

/// Annotation of a `RivvenCluster` that overrides rows, as `clustering=true,tls=false`.
pub const ANNOTATION: &str = "rivven.io/capabilities";

/// Released brokers: standalone only, no TLS, no users.
const STANDALONE: Capabilities = Capabilities {
    clustering: false,
    dns_addresses: false,
    tls: false,
    auth: false,
    acls: false,
    partition_metadata: false,
    durable_topic_config: false,
    online_growth_when_full: false,
    health_split: false,
};

/// 0.1.0 and newer, as documented.
const CLUSTERED: Capabilities = Capabilities {
    clustering: true,
    dns_addresses: true,
    tls: true,
    auth: true,
    acls: true,
    partition_metadata: true,
    durable_topic_config: true,
    online_growth_when_full: true,
    health_split: true,
};

/// A version that says nothing (`latest`, a digest, a pre-release): the safe answer of each row, but clustering is tried.
const UNKNOWN: Capabilities = Capabilities { clustering: true, ..STANDALONE };

/// The first version that clusters.
const FIRST_CLUSTERED: Version = Version::new(0, 1, 0);

/// What brokers of `version` can do.
pub fn capabilities(version: &str) -> Capabilities {
    match Version::parse(version.strip_prefix('v').unwrap_or(version)) {
        Ok(version) if !version.pre.is_empty() => UNKNOWN,
        Ok(version) if version < FIRST_CLUSTERED => STANDALONE,
        Ok(_) => CLUSTERED,
        Err(_) => UNKNOWN,
    }
}

/// What the brokers of a cluster can do: by their version, with the rows that the annotation overrides.
///
/// A single broker of a version that says nothing is run alone: the newest release can do no other.
pub fn capabilities_of(version: &str, brokers: u32, annotation: Option<&str>) -> Result<Capabilities, String> {
    let mut row = capabilities(version);
    row.clustering &= brokers > 1 || row != UNKNOWN;
    for entry in annotation.unwrap_or_default().split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (key, value) =
            entry.split_once('=').ok_or_else(|| format!("{entry:?} is not of the form capability=true"))?;
        let value = value.trim().parse::<bool>().map_err(|_| format!("{value:?} is neither true nor false"))?;
        let field = match key.trim() {
            "clustering" => &mut row.clustering,
            "dns_addresses" => &mut row.dns_addresses,
            "tls" => &mut row.tls,
            "auth" => &mut row.auth,
            "acls" => &mut row.acls,
            "partition_metadata" => &mut row.partition_metadata,
            "durable_topic_config" => &mut row.durable_topic_config,
            "online_growth_when_full" => &mut row.online_growth_when_full,
            "health_split" => &mut row.health_split,
            other => return Err(format!("there is no capability {other:?}")),
        };
        *field = value;
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_get_their_column() {
        for old in ["0.0.1", "0.0.22", "v0.0.22", "0.0.99"] {
            assert_eq!(capabilities(old), STANDALONE, "{old}");
        }
        for new in ["0.1.0", "v0.1.0", "0.2.3", "1.0.0"] {
            assert_eq!(capabilities(new), CLUSTERED, "{new}");
        }
        for unknown in ["latest", "", "0.1", "0.1.0-rc1", "sha256:abc"] {
            assert_eq!(capabilities(unknown), UNKNOWN, "{unknown}");
        }
    }

    #[test]
    fn the_annotation_overrides_single_rows_and_names_what_is_wrong() {
        let row = capabilities_of("0.0.22", 1, Some("clustering=true, tls=true")).unwrap();
        assert!(row.clustering && row.tls && !row.auth);
        assert_eq!(capabilities_of("0.0.22", 1, None), Ok(STANDALONE));
        assert!(capabilities_of("latest", 3, None).unwrap().clustering);
        assert!(!capabilities_of("latest", 1, None).unwrap().clustering);
        assert!(capabilities_of("0.1.0", 1, None).unwrap().clustering);
        for wrong in ["tls", "tls=1", "teleport=true"] {
            assert!(capabilities_of("0.0.22", 1, Some(wrong)).is_err(), "{wrong}");
        }
    }
}
