//! A JSON text with gaps, for webhooks that want another form of an alert than ours.
//!
//! ```json
//! { "text": "{{severity}}: {{summary}}", "tags": ["understudy"], "epoch": "{{epoch}}" }
//! ```
//!
//! The text is JSON before its gaps are filled and after it, whatever an alert says: gaps are in
//! texts only, and what is filled in cannot end one. A text that is nothing but a gap becomes the
//! value itself, so that a number stays a number.

use serde_json::{Map, Value};

/// Names that may stand in a gap: the fields of an alert's JSON, and `status`.
pub const GAPS: [&str; 15] = [
    "at",
    "dedup_key",
    "detail",
    "epoch",
    "event",
    "fields",
    "folded",
    "group",
    "id",
    "lasting",
    "node",
    "resolves",
    "severity",
    "status",
    "summary",
];

/// A JSON text with gaps, all of whose gaps can be filled.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Value);

// JSON knows no number that differs from itself.
impl Eq for Template {}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value = serde_json::from_str::<Value>(text).map_err(|error| {
            // The message of the parser may repeat a piece of the text, the place does not.
            format!("not JSON (line {}, column {} of it)", error.line(), error.column())
        })?;
        check(&value)?;
        Ok(Self(value))
    }

    /// The JSON with its gaps filled by these fields. One that is missing is `null`.
    #[must_use]
    pub fn fill(&self, fields: &Map<String, Value>) -> Value {
        fill(&self.0, fields)
    }
}

/// What a text is made of: what stands between the gaps, and the names in them.
fn pieces(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let gap = text.split_once("{{").and_then(|(before, after)| {
            let (name, after) = after.split_once("}}")?;
            Some((before, name.trim(), after))
        });
        match gap {
            None => Some((text, None)),
            Some((before, name, after)) => {
                rest = Some(after);
                Some((before, Some(name)))
            }
        }
    })
}

fn check(value: &Value) -> Result<(), String> {
    match value {
        Value::String(text) => {
            let unknown = pieces(text).filter_map(|(_, gap)| gap).any(|gap| !GAPS.contains(&gap));
            if unknown {
                return Err(format!("has a gap of an unknown name; known are {}", GAPS.join(", ")));
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(check),
        Value::Object(entries) => entries.values().try_for_each(check),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn fill(value: &Value, fields: &Map<String, Value>) -> Value {
    match value {
        Value::String(text) => fill_text(text, fields),
        Value::Array(items) => items.iter().map(|item| fill(item, fields)).collect(),
        Value::Object(entries) => {
            entries.iter().map(|(key, value)| (key.clone(), fill(value, fields))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn fill_text(text: &str, fields: &Map<String, Value>) -> Value {
    let found = |name: &str| fields.get(name).cloned().unwrap_or(Value::Null);
    let all: Vec<_> = pieces(text).collect();
    if let [("", Some(name)), ("", None)] = all.as_slice() {
        return found(name);
    }
    let mut filled = String::new();
    for (before, gap) in all {
        filled += before;
        match gap.map(found) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => filled += &text,
            Some(other) => filled += &other.to_string(),
        }
    }
    Value::String(filled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn fields() -> Map<String, Value> {
        let fields = json!({
            "summary": "it said \"no\"\n", "epoch": 7, "group": null, "fields": { "step": "start" },
        });
        fields.as_object().unwrap().clone()
    }

    #[test]
    fn gaps_are_filled_in_texts_at_any_depth() {
        let text = r#"{"a": ["{{severity}}x{{ summary }}!", {"b": "{{epoch}}", "c": "n{{epoch}}"}],
                       "d": "{{group}}", "e": "[{{group}}]", "f": "{{fields}}", "g": 1,
                       "{{summary}}": "{{", "h": "}} {{summary"}"#;
        let expected = json!({
            "a": ["xit said \"no\"\n!", { "b": 7, "c": "n7" }],
            "d": null, "e": "[]", "f": { "step": "start" }, "g": 1,
            "{{summary}}": "{{", "h": "}} {{summary",
        });
        assert_eq!(Template::parse(text).unwrap().fill(&fields()), expected);
    }

    #[test]
    fn what_is_wrong_is_said_without_repeating_it() {
        let fault = Template::parse("{\n \"token\": hunter2 }").unwrap_err();
        assert_eq!(fault, "not JSON (line 2, column 11 of it)");
        let fault = Template::parse(r#"{"a": ["{{sumary}}"]}"#).unwrap_err();
        assert!(fault.starts_with("has a gap of an unknown name; known are at, "), "{fault}");
        assert!(!fault.contains("sumary"), "{fault}");
    }

    proptest! {
        #[test]
        fn any_text_is_a_template_or_a_fault_and_any_alert_fills_it(text in ".*", summary in ".*") {
            let fields = json!({ "summary": summary }).as_object().unwrap().clone();
            if let Ok(template) = Template::parse(&text) {
                drop(template.fill(&fields));
            }
            let template = Template::parse(r#"{"x": "a{{summary}}b"}"#).unwrap();
            prop_assert_eq!(template.fill(&fields), json!({ "x": format!("a{summary}b") }));
        }
    }
}
