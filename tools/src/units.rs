//! How numbers are read from the command line and shown to people.

/// Reads a count or a rate: a decimal number, an optional fraction, an optional `k`, `M` or `G` (powers of 1000).
pub fn parse_count(text: &str) -> Result<u64, String> {
    let hint = || format!("`{text}` is not a number; write 1500, 10k, 1.5M or 2G");
    let (digits, unit) = match text.chars().last().ok_or_else(hint)? {
        'k' | 'K' => (&text[..text.len() - 1], 1_000u64),
        'm' | 'M' => (&text[..text.len() - 1], 1_000_000),
        'g' | 'G' => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || fraction.len() > 9 {
        return Err(hint());
    }
    if (digits.contains('.') && fraction.is_empty()) || (!fraction.is_empty() && unit == 1) {
        return Err(hint());
    }
    let too_large = || format!("`{text}` is too large");
    let whole = whole.parse::<u64>().map_err(|_| too_large())?.checked_mul(unit).ok_or_else(too_large)?;
    // At most nine digits times 1e9: no overflow.
    let part = fraction.parse::<u64>().unwrap_or(0) * unit / 10u64.pow(fraction.len() as u32);
    whole.checked_add(part).ok_or_else(too_large)
}

/// Reads a span of time in seconds, with an optional fraction.
pub fn parse_seconds(text: &str) -> Result<std::time::Duration, String> {
    let hint = || format!("`{text}` is not a time in seconds; write 10 or 0.5");
    let seconds: f64 = text.parse().map_err(|_| hint())?;
    std::time::Duration::try_from_secs_f64(seconds).map_err(|_| hint())
}

/// A quantity with its unit: `1.488 Mpps`, or `1488095 pps` when `normalise` is off.
pub fn show(value: f64, unit: &str, normalise: bool) -> String {
    if !normalise {
        return format!("{value:.0} {unit}");
    }
    let (scaled, prefix) = match value {
        v if v >= 1e9 => (v / 1e9, "G"),
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e3 => (v / 1e3, "K"),
        v => (v, ""),
    };
    format!("{scaled:.3} {prefix}{unit}")
}

/// A time of so many nanoseconds, in the unit that reads best.
pub fn show_ns(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{:.2} us", ns as f64 / 1e3),
        _ => format!("{:.2} ms", ns as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_take_suffixes_and_fractions() {
        assert_eq!(parse_count("0"), Ok(0));
        assert_eq!(parse_count("1500"), Ok(1500));
        assert_eq!(parse_count("10k"), Ok(10_000));
        assert_eq!(parse_count("1M"), Ok(1_000_000));
        assert_eq!(parse_count("1.5M"), Ok(1_500_000));
        assert_eq!(parse_count("14.88m"), Ok(14_880_000));
        assert_eq!(parse_count("2G"), Ok(2_000_000_000));
        assert_eq!(parse_count("18446744073709551615"), Ok(u64::MAX));
    }

    #[test]
    fn counts_reject_what_is_not_a_number() {
        for bad in ["", "k", "-1", "1.5", "1.", ".5M", "10q", "1e6", "99999999999G", "1 000", "1.0000000001G", "é"] {
            assert!(parse_count(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn seconds_reject_negative_and_infinite() {
        assert_eq!(parse_seconds("0.5").unwrap().as_millis(), 500);
        for bad in ["-1", "inf", "NaN", "", "1s"] {
            assert!(parse_seconds(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn values_are_shown_with_unit_prefixes_or_raw() {
        assert_eq!(show(999.0, "pps", true), "999.000 pps");
        assert_eq!(show(1_488_095.0, "pps", true), "1.488 Mpps");
        assert_eq!(show(10e9, "bps", true), "10.000 Gbps");
        assert_eq!(show(1_488_095.0, "pps", false), "1488095 pps");
        assert_eq!(show_ns(9_999), "9999 ns");
        assert_eq!(show_ns(12_340), "12.34 us");
        assert_eq!(show_ns(12_340_000), "12.34 ms");
    }
}
