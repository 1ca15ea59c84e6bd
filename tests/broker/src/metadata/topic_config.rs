//! The keys of a topic's configuration: defaults and rules of the released broker.

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

/// A value as it is shown once it is set, or why it cannot be set; word for word what the released broker says.
pub fn parse(key: &str, value: &str) -> Result<String, String> {
    let lower = value.to_lowercase();
    let at_least = |low: i64, rule: &str| {
        let number = if key == MIN_INSYNC { value.parse::<i32>().map(i64::from) } else { value.parse() };
        match number {
            Ok(number) if number < low => Err(format!("{key} must be {rule}")),
            Ok(number) => Ok(number.to_string()),
            Err(error) => Err(format!("Invalid {key}: {error}")),
        }
    };
    let parsed = match (key, lower.as_str()) {
        ("retention.ms" | "retention.bytes" | "segment.ms", _) => at_least(-1, ">= -1 (-1 = infinite)"),
        ("max.message.bytes" | MIN_INSYNC, _) => at_least(1, "> 0"),
        ("segment.bytes", _) => at_least(1024, ">= 1024"),
        ("cleanup.policy", "delete" | "compact" | "compact,delete")
        | ("compression.type", "none" | "producer" | "lz4" | "zstd" | "snappy" | "gzip") => Ok(lower),
        ("cleanup.policy", "delete,compact") => Ok("compact,delete".to_owned()),
        ("cleanup.policy", _) => Err(format!("Invalid cleanup policy: {value}")),
        ("compression.type", _) => Err(format!("Invalid compression type: {value}")),
        _ => Err(format!("Unknown configuration key: {key}")),
    };
    parsed.map_err(|problem| format!("INVALID_CONFIG: {problem}"))
}
