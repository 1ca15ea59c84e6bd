//! Kubernetes' quantities, exactly: no floating point, no overflow.

/// Billionths in one: the finest step a quantity has.
const NANO: i128 = 1_000_000_000;

/// The value in billionths, rounded up as the API server does. `None`: not a quantity, or out of all bounds.
pub fn nanos(quantity: &str) -> Option<i128> {
    let (negative, rest) = match quantity.as_bytes().first()? {
        b'-' => (true, &quantity[1..]),
        b'+' => (false, &quantity[1..]),
        _ => (false, quantity),
    };
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if fraction.contains('.') || digits.is_empty() {
        return None;
    }
    let digits: i128 =
        digits.trim_start_matches('0').parse().ok().or_else(|| digits.bytes().all(|b| b == b'0').then_some(0))?;
    let (factor, exponent) = unit(suffix)?;
    // digits * factor * 10^(exponent - length of the fraction), in billionths
    let exponent = exponent.checked_add(9)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let scaled = digits.checked_mul(factor)?;
    let power = |exponent: u32| 10_i128.checked_pow(exponent);
    let magnitude = match u32::try_from(exponent) {
        Ok(_) if scaled == 0 => 0,
        Ok(exponent) => scaled.checked_mul(power(exponent)?)?,
        // A divisor beyond all bounds leaves the smallest step, for it is rounded up.
        Err(_) => power(exponent.unsigned_abs())
            .map_or(i128::from(scaled > 0), |by| scaled / by + i128::from(scaled % by > 0)),
    };
    Some(if negative { -magnitude } else { magnitude })
}

/// The value in bytes, rounded up. `None`: not a quantity, negative, or more than the API server can count.
pub fn bytes(quantity: &str) -> Option<u64> {
    let nanos = nanos(quantity).filter(|nanos| *nanos >= 0)?;
    let bytes = nanos / NANO + i128::from(nanos % NANO > 0);
    i64::try_from(bytes).ok().and_then(|bytes| u64::try_from(bytes).ok())
}

/// A suffix as a factor and a power of ten.
fn unit(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "" => (1, 0),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        _ => (1, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_exact() {
        for (quantity, is) in [
            ("1.5Gi", 3 << 29),
            ("1536Mi", 3 << 29),
            ("0.3Ki", 308),
            ("307200m", 308),
            ("0.1", 1),
            ("1e3", 1000),
            ("1E", 1_000_000_000_000_000_000),
            ("1E3", 1000),
            ("9007199254740993", 9_007_199_254_740_993),
            ("9223372036854775807", i64::MAX.unsigned_abs()),
            ("0", 0),
            ("00.0Ei", 0),
            ("1n", 1),
            (".5Ki", 512),
            ("5.", 5),
        ] {
            assert_eq!(bytes(quantity), Some(is), "{quantity}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for wrong in [
            "",
            "-",
            "Gi",
            "1GB",
            "1 Gi",
            "-1",
            "1..5",
            "1.5.5",
            "ä",
            "1ä",
            "8Ei",
            "1e99999999999",
            "99999999999999999999E",
            "1e39",
        ] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
        assert_eq!(nanos("-1.5"), Some(-1_500_000_000));
    }
}
