//! What a probe found.

use super::level::Level;

/// Characters of a line of text that are kept: it is read in a terminal and on a telephone.
pub const TEXT_CHARS_MAX: usize = 300;

/// Lines of detail that are kept, such as missing keys. Who has more knows from the count.
pub const DETAILS_MAX: usize = 20;

/// What a probe found when all went well.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// The number that is compared with thresholds; absent if there is none yet, as for a rate after
    /// the first sample.
    pub value: Option<f64>,
    /// What the probe says of it by itself, if it judges.
    pub level: Option<Level>,
    /// In one line.
    pub text: String,
    /// Further lines.
    pub details: Vec<String>,
}

impl Measured {
    /// A number, and no more.
    #[must_use]
    pub fn number(value: f64) -> Self {
        Self { value: Some(value), ..Self::default() }
    }

    /// A number and what to say about it.
    #[must_use]
    pub fn said(value: f64, text: impl Into<String>) -> Self {
        Self { value: Some(value), text: text.into(), ..Self::default() }
    }

    /// Nothing yet, and why.
    #[must_use]
    pub fn not_yet(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// The same, with everything that came from outside within its bounds.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.value = self.value.filter(|value| value.is_finite());
        self.text = one_line(&self.text);
        self.details.truncate(DETAILS_MAX);
        for line in &mut self.details {
            *line = one_line(line);
        }
        self
    }
}

/// A text from outside as one line of bounded length, without anything that a terminal obeys.
#[must_use]
pub fn one_line(text: &str) -> String {
    let clean = |char: char| if char.is_control() || is_invisible(char) { ' ' } else { char };
    let mut line: String = text.trim().chars().take(TEXT_CHARS_MAX).map(clean).collect();
    if text.trim().chars().nth(TEXT_CHARS_MAX).is_some() {
        line.push('…');
    }
    line
}

/// Marks that change the direction of writing, and the like.
const fn is_invisible(char: char) -> bool {
    matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_is_one_line_and_bounded() {
        let hostile = format!("a\u{1b}[31m\nb\u{202e}{}", "x".repeat(100_000));
        let measured = Measured {
            value: Some(f64::NAN),
            level: None,
            text: hostile.clone(),
            details: vec![hostile; 1_000],
        };
        let bounded = measured.bounded();
        assert_eq!(bounded.value, None);
        assert_eq!(bounded.details.len(), DETAILS_MAX);
        assert_eq!(bounded.text.chars().count(), TEXT_CHARS_MAX + 1);
        assert!(bounded.text.starts_with("a [31m b "), "{}", bounded.text);
    }
}
