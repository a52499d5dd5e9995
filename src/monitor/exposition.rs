//! The text that exporters serve: one sample on a line.
//!
//! ```text
//! http_requests_total{method="post",code="200"} 1027 1395066363000
//! ```

/// A metric and the labels that its samples must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    name: String,
    labels: Vec<(String, String)>,
}

impl Selector {
    /// Reads `name` or `name{label="value", …}`.
    ///
    /// # Errors
    /// If it is neither, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "not a metric; write it like up or http_requests{code=\"500\"}".to_owned();
        let (name, labels, rest) = head(text.trim()).ok_or_else(wrong)?;
        if !rest.trim().is_empty() {
            return Err(wrong());
        }
        Ok(Self { name, labels })
    }

    /// The values of all samples that it selects.
    #[must_use]
    pub fn select(&self, text: &str) -> Vec<f64> {
        let lines = text.lines().map(str::trim_start);
        // Most lines are of other metrics; their labels are not read.
        let lines = lines.filter(|line| line.starts_with(&self.name));
        let values = lines.filter_map(|line| {
            let (name, labels, rest) = head(line)?;
            let fits = name == self.name && self.labels.iter().all(|label| labels.contains(label));
            if !fits {
                return None;
            }
            rest.split_whitespace().next()?.parse::<f64>().ok().filter(|value| value.is_finite())
        });
        values.collect()
    }
}

type Head<'a> = (String, Vec<(String, String)>, &'a str);

/// Name and labels, and what is behind them.
fn head(text: &str) -> Option<Head<'_>> {
    let end = text.find(|char: char| !is_of_name(char)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() || name.starts_with(|char: char| char.is_ascii_digit()) {
        return None;
    }
    let mut labels = Vec::new();
    let Some(mut rest) = rest.strip_prefix('{') else {
        return Some((name.to_owned(), labels, rest));
    };
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((name.to_owned(), labels, rest));
        }
        let (label, after) = rest.split_once('=')?;
        let (value, after) = quoted(after.trim_start())?;
        labels.push((label.trim().to_owned(), value));
        rest = after;
    }
}

fn is_of_name(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_' || char == ':'
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.strip_prefix('"')?.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, text.get(at + 2..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "# HELP http_requests Requests\n# TYPE http_requests counter\n\
        http_requests{code=\"200\",path=\"/a}\\\"b\"} 10 1395066363000\n\
        http_requests{code=\"500\", path=\"/\"} 3\n\
        http_requests_more 7\nup 1\nbroken{code=\"200\nempty{} NaN\n";

    fn select(selector: &str) -> Vec<f64> {
        Selector::parse(selector).unwrap().select(TEXT)
    }

    #[test]
    fn samples_are_selected_by_name_and_labels() {
        assert_eq!(select("up"), [1.0]);
        assert_eq!(select("http_requests"), [10.0, 3.0]);
        assert_eq!(select("http_requests{code=\"500\"}"), [3.0]);
        assert_eq!(select("http_requests{ path = \"/a}\\\"b\", code=\"200\" }"), [10.0]);
        assert_eq!(select("http_requests{code=\"404\"}"), [0.0; 0]);
        assert_eq!(select("broken"), [0.0; 0]);
        assert_eq!(select("empty"), [0.0; 0]);
    }

    #[test]
    fn what_is_no_metric_is_refused() {
        for text in ["", "1x", "a b", "a{", "a{x}", "a{x=\"1}", "sum(up)", "a{x=\"1\"} > 5"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn anything_can_be_read(text in "(?s).*") {
            let selector = Selector { name: "a".to_owned(), labels: Vec::new() };
            drop(selector.select(&text));
            drop(Selector::parse(&text));
        }
    }
}
