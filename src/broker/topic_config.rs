//! Names and configuration of topics, as the released broker checks them.
//!
//! All keys are checked before anything is sent: the broker applies changes in order, and earlier ones stay applied
//! when a later one fails (observed on 0.0.22).

/// The key of the least number of in-sync replicas that a write needs.
pub const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

/// `retention.ms` of a topic that nobody configured.
pub(super) const DEFAULT_RETENTION_MS: u64 = 604_800_000;
/// `segment.bytes` of a topic that nobody configured.
pub(super) const DEFAULT_SEGMENT_BYTES: u64 = 1_073_741_824;

/// Names of the broker's own directories: it accepts them as topics and mixes the files (observed on 0.0.22).
const RESERVED: [&str; 3] = ["wal", "raft", "offsets"];
/// Longest name in characters.
const NAME_LIMIT: usize = 255;

/// Whether the broker takes the name, and should.
pub fn check_name(topic: &str) -> Result<(), String> {
    if RESERVED.contains(&topic) {
        return Err(format!("{topic:?} is a directory of the broker's own; choose another name"));
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty() || topic.len() > NAME_LIMIT || !topic.chars().all(legal) {
        return Err(format!("{topic:?} must have 1 to {NAME_LIMIT} letters, digits, '.', '_' or '-'"));
    }
    if !topic.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(format!("{topic:?} must begin with a letter or a digit"));
    }
    Ok(())
}

/// The value as the broker prints it, or what is wrong with it.
pub fn check(key: &str, value: &str) -> Result<String, String> {
    let at_least = |least: i64| match value.parse::<i64>() {
        Ok(number) if number >= least => Ok(number.to_string()),
        _ => Err(format!("{value:?} is not a whole number of at least {least}")),
    };
    match key {
        "retention.ms" | "retention.bytes" | "segment.ms" => at_least(-1),
        "max.message.bytes" => at_least(1),
        "segment.bytes" => at_least(1024),
        MIN_INSYNC_REPLICAS => match value.parse::<i32>() {
            Ok(number) if number > 0 => Ok(number.to_string()),
            _ => Err(format!("{value:?} is not a whole number of at least 1")),
        },
        "cleanup.policy" => match value {
            "delete" | "compact" => Ok(value.to_owned()),
            "compact,delete" | "delete,compact" => Ok("compact,delete".to_owned()),
            _ => Err(format!("{value:?} is none of delete, compact and delete,compact")),
        },
        "compression.type" => match value {
            "none" | "producer" | "lz4" | "zstd" | "snappy" | "gzip" => Ok(value.to_owned()),
            _ => Err(format!("{value:?} is none of none, producer, gzip, snappy, lz4 and zstd")),
        },
        _ => Err(format!("the broker knows no key {key:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_the_broker_checks_them() {
        for good in ["a", "orders", "Orders.v1_x-2", "9", &"x".repeat(255)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", "_x", ".x", "-x", "a b", "ä", "a/b", "wal", "raft", "offsets", &"x".repeat(256)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_are_written_as_the_broker_prints_them() {
        assert_eq!(check("cleanup.policy", "delete,compact").as_deref(), Ok("compact,delete"));
        assert_eq!(check("retention.ms", "-1").as_deref(), Ok("-1"));
        assert_eq!(check("compression.type", "lz4").as_deref(), Ok("lz4"));
        for (key, value) in [
            ("retention.ms", "-2"),
            ("retention.ms", "x"),
            ("segment.bytes", "1023"),
            ("max.message.bytes", "0"),
            ("min.insync.replicas", "0"),
            ("cleanup.policy", "keep"),
            ("compression.type", "brotli"),
            ("replication.factor", "3"),
        ] {
            assert!(check(key, value).is_err(), "{key}={value}");
        }
    }
}
