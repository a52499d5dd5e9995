//! What Monitoring Plugins (Nagios, Icinga) print: a line of text, then figures behind a `|`.
//!
//! ```text
//! DISK OK - free space: / 3326 MB (56%); | /=2643MB;5948;5958;0;5968 'var log'=1.5s
//! ```

use super::level::Level;
use super::number;

/// Figures of one plugin that are read.
const FIGURES_MAX: usize = 1_000;

/// What a plugin printed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Printed {
    /// Its first line, without the figures.
    pub text: String,
    /// Further lines.
    pub details: Vec<String>,
    /// Its figures by label, in base units: seconds, bytes, percent.
    pub figures: Vec<(String, f64)>,
}

/// The level that an exit status means. `None` is UNKNOWN: the plugin could not tell.
#[must_use]
pub const fn level(status: i32) -> Option<Level> {
    match status {
        0 => Some(Level::Green),
        1 => Some(Level::Yellow),
        2 => Some(Level::Red),
        _ => None,
    }
}

/// Reads the lines that a plugin printed.
#[must_use]
pub fn read(lines: &[String]) -> Printed {
    let mut printed = Printed::default();
    // Behind a `|` in a further line, all that follows is figures.
    let mut in_figures = false;
    for (index, line) in lines.iter().enumerate() {
        let (text, behind) = match line.split_once('|') {
            Some((text, behind)) => (text, Some(behind)),
            None if in_figures => ("", Some(line.as_str())),
            None => (line.as_str(), None),
        };
        let text = text.trim();
        if index == 0 {
            text.clone_into(&mut printed.text);
        } else if !text.is_empty() {
            printed.details.push(text.to_owned());
        }
        if let Some(behind) = behind {
            in_figures |= index > 0;
            figures(behind, &mut printed.figures);
        }
    }
    printed
}

fn figures(mut text: &str, found: &mut Vec<(String, f64)>) {
    while found.len() < FIGURES_MAX {
        text = text.trim_start();
        let Some((label, rest)) = label(text) else { return };
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (value, after) = rest.split_at(end);
        text = after;
        let value = value.split(';').next().unwrap_or_default();
        if let Some(value) = figure(value) {
            found.push((label, value));
        }
    }
}

/// A label and what is behind its `=`. In quotes it may hold spaces, and a quote is doubled.
fn label(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('\'') else {
        let (label, rest) = text.split_once('=')?;
        return Some((label.to_owned(), rest));
    };
    let mut label = String::new();
    loop {
        let (part, after) = rest.split_once('\'')?;
        label.push_str(part);
        match after.strip_prefix('\'') {
            Some(more) => {
                label.push('\'');
                rest = more;
            }
            None => return Some((label, after.strip_prefix('=')?)),
        }
    }
}

/// A value with the unit of a plugin: nothing, s, us, ms, %, B, KB, MB, GB, TB or c.
fn figure(text: &str) -> Option<f64> {
    // A decimal comma comes from plugins that run in another language.
    let text = text.replace(',', ".");
    let text = text.strip_suffix('c').unwrap_or(&text);
    // Plugins mean powers of two by KB, and so do those who read them.
    let bytes =
        [("TB", "TiB"), ("GB", "GiB"), ("MB", "MiB"), ("KB", "KiB"), ("kB", "KiB"), ("B", "")];
    for (ending, unit) in bytes {
        if let Some(bare) = text.strip_suffix(ending) {
            return number::parse(&format!("{bare}{unit}"));
        }
    }
    number::parse(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn figures_have_labels_units_and_bounds() {
        let printed = read(&lines(
            "DISK OK - free: / 3326 MB; | /=2MB;5948;5958;0;5968 'var ''log'=1,5s;;\n\
             / 15272 MB\n/boot 68 MB | /boot=68%;88\n/home=250ms\n=5 junk 'open=3",
        ));
        assert_eq!(printed.text, "DISK OK - free: / 3326 MB;");
        assert_eq!(printed.details, ["/ 15272 MB", "/boot 68 MB"]);
        let figures: Vec<_> = printed.figures.iter().map(|(l, v)| (l.as_str(), *v)).collect();
        let mebibytes = 2.0 * 1_048_576.0;
        let expected = [
            ("/", mebibytes),
            ("var 'log", 1.5),
            ("/boot", 68.0),
            ("/home", 0.25),
            ("", 5.0),
            // Not as the rules want it, but all that it can mean.
            ("junk 'open", 3.0),
        ];
        assert_eq!(figures, expected);
    }

    #[test]
    fn statuses_are_levels_and_the_rest_is_not_known() {
        assert_eq!(
            [0, 1, 2, 3].map(level),
            [Some(Level::Green), Some(Level::Yellow), Some(Level::Red), None]
        );
        assert_eq!(level(127), None);
    }

    proptest! {
        #[test]
        fn anything_can_be_read(text in "(?s).*") {
            let printed = read(&lines(&text));
            prop_assert!(printed.figures.iter().all(|(_, value)| value.is_finite()));
        }

        #[test]
        fn anything_like_figures_can_be_read(text in "[|'= ;0-9a-cMBs,.%-]{0,80}") {
            drop(read(&[text]));
        }
    }
}
