//! The keys of a topic's configuration: defaults and rules of the released broker.

use std::collections::BTreeMap;

/// Every key with its default.
pub const DEFAULTS: [(&str, &str); 8] = [
    ("cleanup.policy", "delete"),
    ("compression.type", "producer"),
    ("max.message.bytes", "1048576"),
    ("min.insync.replicas", "1"),
    ("retention.bytes", "-1"),
    ("retention.ms", "604800000"),
    ("segment.bytes", "1073741824"),
    ("segment.ms", "604800000"),
];

/// The key that says how many in-sync replicas a publish needs.
pub const MIN_INSYNC: &str = "min.insync.replicas";

/// Whether there is such a key.
pub fn check_key(key: &str) -> Result<(), String> {
    let known = DEFAULTS.iter().any(|(known, _)| *known == key);
    known.then_some(()).ok_or_else(|| format!("INVALID_CONFIG: Unknown configuration key: {key}"))
}

/// Whether a value may be set.
pub fn check(key: &str, value: &str) -> Result<(), String> {
    check_key(key)?;
    let at_least = |low: i64| value.parse::<i64>().is_ok_and(|number| number >= low);
    let (fine, problem) = match key {
        "retention.ms" | "retention.bytes" | "segment.ms" => (at_least(-1), format!("Invalid {key}: {value}")),
        "max.message.bytes" => (at_least(1), format!("Invalid {key}: {value}")),
        "segment.bytes" => (at_least(1024), format!("Invalid {key}: {value}")),
        MIN_INSYNC => (value.parse::<i32>().is_ok_and(|n| n > 0), format!("Invalid {key}: {value}")),
        "cleanup.policy" => {
            let fine = matches!(value, "delete" | "compact" | "compact,delete" | "delete,compact");
            (fine, format!("Invalid cleanup policy: {value}"))
        }
        _ => {
            let fine = matches!(value, "none" | "producer" | "lz4" | "zstd" | "snappy" | "gzip");
            (fine, format!("Invalid compression type: {value}"))
        }
    };
    fine.then_some(()).ok_or_else(|| format!("INVALID_CONFIG: {problem}"))
}

/// Whether all may be set.
pub fn check_all(config: &BTreeMap<String, String>) -> Result<(), String> {
    config.iter().try_for_each(|(key, value)| check(key, value))
}
