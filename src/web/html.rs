//! HTML that cannot be broken by what is put into it.
//!
//! Markup is a literal of the program. Everything else is escaped, there is no way around it.

/// A piece of HTML.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Html(String);

impl Html {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends markup, which is written in this program.
    pub fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Appends another piece.
    pub fn add(&mut self, other: &Self) -> &mut Self {
        self.0.push_str(&other.0);
        self
    }

    /// Appends a text, or the value of an attribute in quotes.
    pub fn text(&mut self, text: &str) -> &mut Self {
        for char in text.chars() {
            match char {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(char),
                // Nothing that a terminal or a parser could take for more than a letter.
                char if char.is_control() => self.0.push('\u{fffd}'),
                char => self.0.push(char),
            }
        }
        self
    }

    /// Appends a text from elsewhere, such as a name, so that its direction of writing does not
    /// reach what is around it.
    pub fn name(&mut self, text: &str) -> &mut Self {
        self.raw("<bdi>").text(text).raw("</bdi>")
    }

    /// Appends a number.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.0.push_str(&number.to_string());
        self
    }

    /// The whole.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }

    /// How it stands.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_a_text() {
        let mut html = Html::new();
        html.raw("<p title=\"").text("a\"b'c").raw("\">").text("<script>&\u{1b}[31m</script>");
        assert_eq!(
            html.as_str(),
            "<p title=\"a&quot;b&#39;c\">&lt;script&gt;&amp;\u{fffd}[31m&lt;/script&gt;"
        );
    }

    #[test]
    fn a_name_keeps_its_direction_to_itself() {
        let mut html = Html::new();
        html.name("\u{202e}evil");
        assert_eq!(html.as_str(), "<bdi>\u{202e}evil</bdi>");
    }
}
