//! Numbers with units, as people write and read them.

/// Endings and what they multiply by. Powers of two for bytes, powers of ten for counts, seconds for
/// time. The longer ending comes first where one ends in another.
const ENDINGS: [(&str, f64); 16] = [
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("us", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3_600.0),
    ("d", 86_400.0),
    ("k", 1e3),
    ("M", 1e6),
];

/// Reads `80`, `80%`, `1.5GiB`, `500ms`, `-3`. A percent sign changes nothing: what is measured in
/// percent has 80 for 80 %.
#[must_use]
pub fn parse(text: &str) -> Option<f64> {
    let text = text.trim();
    let bare = text.strip_suffix('%').unwrap_or(text);
    let (bare, factor) = ENDINGS
        .iter()
        .find_map(|(ending, factor)| Some((bare.strip_suffix(ending)?, *factor)))
        .unwrap_or((bare, 1.0));
    let bare = bare.trim_end();
    // Rust also reads "inf", "nan" and "1e5"; only the last is a number to a person.
    if !bare.ends_with(|char: char| char.is_ascii_digit()) {
        return None;
    }
    bare.parse::<f64>().ok().map(|number| number * factor).filter(|number| number.is_finite())
}

/// A number as short as it is exact enough: four digits or so, with an ending behind it.
///
/// `suffix` is "s" for seconds and "B" for bytes, which are scaled; any other is put behind it.
#[must_use]
pub fn show(value: f64, suffix: &str) -> String {
    match suffix {
        "s" => seconds(value),
        "B" => bytes(value),
        "" => plain(value),
        "%" => format!("{} %", plain(value)),
        other => format!("{} {other}", plain(value)),
    }
}

fn plain(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        _ if size >= 1_000.0 || value.fract() == 0.0 => 0,
        _ if size >= 100.0 => 1,
        _ if size >= 1.0 => 2,
        _ => 4,
    };
    // A zero with a sign is a zero.
    let text = format!("{:.decimals$}", value + 0.0);
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

fn seconds(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        0.0 => (value, "s"),
        size if size < 1e-3 => (value * 1e6, "µs"),
        size if size < 1.0 => (value * 1e3, "ms"),
        size if size < 120.0 => (value, "s"),
        size if size < 7_200.0 => (value / 60.0, "min"),
        size if size < 172_800.0 => (value / 3_600.0, "h"),
        _ => (value / 86_400.0, "d"),
    };
    format!("{} {unit}", plain(scaled))
}

fn bytes(value: f64) -> String {
    let mut scaled = value;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if scaled.abs() < 1024.0 {
            return format!("{} {unit}", plain(scaled));
        }
        scaled /= 1024.0;
    }
    format!("{} TiB", plain(scaled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_each_form() {
        for (text, number) in [
            ("80", Some(80.0)),
            (" 80 % ", Some(80.0)),
            ("-3.5", Some(-3.5)),
            ("1.5GiB", Some(1.5 * 1_073_741_824.0)),
            ("500 ms", Some(0.5)),
            ("2k", Some(2_000.0)),
            ("4h", Some(14_400.0)),
            ("1e3", Some(1_000.0)),
            ("", None),
            ("ms", None),
            ("inf", None),
            ("NaN", None),
            ("1.", None),
            ("8 0", None),
            ("80 percent", None),
            ("1e999", None),
        ] {
            assert_eq!(parse(text), number, "{text:?}");
        }
    }

    #[test]
    fn numbers_are_shown_short() {
        for (value, suffix, shown) in [
            (0.0, "", "0"),
            (-0.0, "", "0"),
            (55.5, "%", "55.5 %"),
            (1_234_567.8, "", "1234568"),
            (0.01234, "", "0.0123"),
            (0.25, "s", "250 ms"),
            (90.0, "s", "90 s"),
            (5_400.0, "s", "90 min"),
            (1_536.0, "B", "1.5 KiB"),
            (3.0, "keys", "3 keys"),
        ] {
            assert_eq!(show(value, suffix), shown);
        }
    }
}
