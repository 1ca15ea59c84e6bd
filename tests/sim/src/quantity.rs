//! Quantities: exact, and written back in the canonical form the API server uses.

const NANO: i128 = 1_000_000_000;
const BINARY: [(&str, u32); 6] = [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
const DECIMAL: [(&str, i128); 10] = [
    ("E", NANO * 1_000_000_000_000_000_000),
    ("P", NANO * 1_000_000_000_000_000),
    ("T", NANO * 1_000_000_000_000),
    ("G", NANO * NANO),
    ("M", NANO * 1_000_000),
    ("k", NANO * 1_000),
    ("", NANO),
    ("m", 1_000_000),
    ("u", 1_000),
    ("n", 1),
];

/// The value in billionths, and whether it was written with a binary suffix. Exponents are not supported.
pub(crate) fn parse(quantity: &str) -> Option<(i128, bool)> {
    let end = quantity.find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c))).unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(end);
    let (unit, binary) = match BINARY.iter().find(|(s, _)| *s == suffix) {
        Some((_, power)) => (NANO << power, true),
        None => (DECIMAL.iter().find(|(s, _)| *s == suffix)?.1, false),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    Some((digits.checked_mul(unit)? / 10_i128.pow(u32::try_from(fraction.len()).ok()?), binary))
}

/// `1024Mi` is stored as `1Gi`, `0.5` as `500m`.
pub(crate) fn canonical(quantity: &str) -> Option<String> {
    let (value, binary) = parse(quantity)?;
    if value == 0 {
        return Some("0".into());
    }
    if binary && value % NANO == 0 && value / NANO >= 1024 {
        let units = value / NANO;
        let found = BINARY.iter().find(|(_, power)| units % (1 << power) == 0);
        return Some(found.map_or(units.to_string(), |(suffix, power)| format!("{}{suffix}", units >> power)));
    }
    DECIMAL.iter().find(|(_, unit)| value % unit == 0).map(|(suffix, unit)| format!("{}{suffix}", value / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_written_canonically() {
        for (given, stored) in
            [("1024Mi", "1Gi"), ("0.5", "500m"), ("1000m", "1"), ("1.5Gi", "1536Mi"), ("2000", "2k"), ("1Gi", "1Gi")]
        {
            assert_eq!(canonical(given).as_deref(), Some(stored), "{given}");
        }
        assert_eq!(canonical("1GB"), None);
    }
}
