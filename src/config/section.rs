//! Takes keys from a table of a [`Document`](super::document::Document), one by one.
//!
//! Each key that is asked for becomes known. When its reader is done, whatever is in the table and
//! was never asked for is an unknown key. So the code that reads a table is the one list of its
//! keys.

use std::collections::BTreeMap;
use std::time::Duration;

use super::document::{Entry, Node, Place, Table, Value};
use super::fault::Sink;
use super::load::Surroundings;
use super::secret::{self, Secret};
use super::values;

/// Longest key that is shown or compared with known ones. Longer ones are a mistake of another
/// kind.
const KEY_CHARS_MAX: usize = 64;

/// A table while it is read.
pub(super) struct Section<'a> {
    /// Dotted, empty for the root.
    path: String,
    table: &'a Table,
    known: Vec<&'static str>,
    sink: &'a Sink,
}

/// What a key says, or its default.
#[derive(Clone)]
pub(super) struct Setting<T> {
    /// The default, too, if what is written makes no sense.
    pub value: T,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a setting comes from.
#[derive(Clone)]
pub(super) struct Origin {
    key: String,
    written: Option<Place>,
    sound: bool,
}

impl Origin {
    /// Whether the value is what a file says or the default, and not a stand-in for what made no
    /// sense or is missing.
    pub const fn is_sound(&self) -> bool {
        self.sound
    }
}

impl<T> Setting<T> {
    /// Whether a file says it.
    pub fn is_written(&self) -> bool {
        self.origin.written.is_some()
    }

    /// This, or `base` if no file says it.
    pub fn or_inherit(self, base: &Self) -> Self
    where
        T: Clone,
    {
        if self.is_written() { self } else { base.clone() }
    }
}

/// Default and bounds of a duration.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub default: Duration,
    pub least: Duration,
    pub most: Duration,
}

impl Span {
    /// The same bounds with another default.
    pub fn or(self, default: Duration) -> Self {
        Self { default, ..self }
    }
}

/// Default and bounds of a number.
#[derive(Clone, Copy)]
pub(super) struct Count {
    pub default: u64,
    pub least: u64,
    pub most: u64,
}

/// An item of a list.
pub(super) struct Item<T> {
    pub value: T,
    pub at: Place,
    pub key: String,
}

impl<'a> Section<'a> {
    /// Reads a whole document by `read`.
    pub fn root<T>(table: &'a Table, sink: &'a Sink, read: impl FnOnce(&mut Self) -> T) -> T {
        Self::read(String::new(), table, sink, read)
    }

    /// Reads the table `key` by `read`, as an empty one if it is not there.
    pub fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let path = self.path(key);
        match self.table_at(key) {
            Some(table) => Section::read(path, table, self.sink, read),
            None => Section::read(path, &Table::absent(self.table.at), self.sink, read),
        }
    }

    /// Reads the table `key` by `read` if it is there.
    pub fn table_if_written<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        let path = self.path(key);
        let table = self.table_at(key)?;
        Some(Section::read(path, table, self.sink, read))
    }

    /// Reads each of the named tables under `key`, at most `most`.
    pub fn named_tables<T>(
        &mut self,
        key: &'static str,
        most: usize,
        mut read: impl FnMut(&str, &mut Section<'_>) -> T,
    ) -> Vec<T> {
        let Some(tables) = self.table_at(key) else { return Vec::new() };
        let path = self.path(key);
        if tables.entries.len() > most {
            let text = format!("{} of them, but at most {most} are allowed", tables.entries.len());
            self.sink.wrong(tables.at, path, text);
            return Vec::new();
        }
        let mut all = Vec::new();
        for (name, entry) in &tables.entries {
            let path = format!("{path}.{}", shown_key(name));
            if let Err(text) = values::name(name) {
                self.sink.wrong(entry.key_at, path, text);
            } else if let Value::Table(table) = &entry.node.value {
                all.push(Section::read(path, table, self.sink, |section| read(name, section)));
            } else {
                self.sink.wrong(entry.node.at, path, expected("a table", &entry.node.value));
            }
        }
        all
    }

    /// The same, with at least one table; `what` says what to write.
    pub fn needed_named_tables<T>(
        &mut self,
        key: &'static str,
        most: usize,
        what: &str,
        read: impl FnMut(&str, &mut Section<'_>) -> T,
    ) -> Vec<T> {
        let written = match self.table.entries.get(key).map(|entry| &entry.node.value) {
            None => false,
            Some(Value::Table(tables)) => !tables.entries.is_empty(),
            Some(_) => true,
        };
        if !written {
            self.sink.missing(self.table.at, self.path(key), format!("missing; {what}"));
        }
        self.named_tables(key, most, read)
    }

    /// A text that `parse` understands, or the default.
    pub fn text<T>(
        &mut self,
        key: &'static str,
        default: impl Into<T>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Setting<T> {
        self.value(key, default.into(), |value| text(value, parse))
    }

    /// A text that `parse` understands, if it is there.
    pub fn text_if_written<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Setting<Option<T>> {
        self.value(key, None, |value| text(value, parse).map(Some))
    }

    /// A text that `parse` understands and that must be there; `what` says what it is for.
    pub fn needed_text(
        &mut self,
        key: &'static str,
        what: &str,
        parse: impl FnOnce(&str) -> Result<String, String>,
    ) -> Setting<String> {
        let read = self.value(key, String::new(), |value| text(value, parse));
        self.need(read, what)
    }

    /// One of a few words, or the default.
    pub fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        default: T,
        choices: &[(&'static str, T)],
    ) -> Setting<T> {
        self.value(key, default, |value| text(value, |word| values::choice(word, choices)))
    }

    /// One of a few words, which must be there.
    pub fn needed_choice<T: Copy>(
        &mut self,
        key: &'static str,
        placeholder: T,
        choices: &[(&'static str, T)],
    ) -> Setting<T> {
        let read = self.choice(key, placeholder, choices);
        self.need(read, &values::one_of(choices))
    }

    /// A duration.
    pub fn duration(&mut self, key: &'static str, span: Span) -> Setting<Duration> {
        self.value(key, span.default, |value| {
            if let Value::Integer(number) = value {
                let text = format!("a duration needs a unit; write \"{number}s\" for seconds");
                return Err(text);
            }
            text(value, |word| values::duration(word, span))
        })
    }

    /// A whole number.
    pub fn count(&mut self, key: &'static str, count: Count) -> Setting<u64> {
        self.value(key, count.default, |value| {
            let Value::Integer(number) = value else { return Err(expected("a number", value)) };
            let Count { least, most, .. } = count;
            u64::try_from(*number)
                .ok()
                .filter(|number| (least..=most).contains(number))
                .ok_or_else(|| format!("{number} is out of range; write {least} to {most}"))
        })
    }

    /// True or false.
    pub fn boolean(&mut self, key: &'static str, default: bool) -> Setting<bool> {
        self.value(key, default, |value| {
            let Value::Boolean(truth) = value else { return Err(expected("true or false", value)) };
            Ok(*truth)
        })
    }

    /// A list of texts that `parse` understands, at most `most`; empty if it is not there.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        most: usize,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Setting<Vec<Item<T>>> {
        let path = self.path(key);
        let sink = self.sink;
        let mut sound = true;
        let mut read = self.value(key, Vec::new(), |value| {
            let Value::List(nodes) = value else {
                return Err(expected("a list such as [\"a\", \"b\"]", value));
            };
            if nodes.len() > most {
                return Err(format!("lists {}, but at most {most} are allowed", nodes.len()));
            }
            let mut items = Vec::new();
            for (index, node) in nodes.iter().enumerate() {
                let key = format!("{path}[{index}]");
                match text(&node.value, &parse) {
                    Ok(value) => items.push(Item { value, at: node.at, key }),
                    Err(text) => {
                        sound = false;
                        sink.wrong(node.at, key, text);
                    }
                }
            }
            Ok(items)
        });
        read.origin.sound &= sound;
        read
    }

    /// The same, with at least one item; `what` says what it is for.
    pub fn needed_list<T>(
        &mut self,
        key: &'static str,
        most: usize,
        what: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Setting<Vec<Item<T>>> {
        let read = self.list(key, most, parse);
        let mut read = self.need(read, what);
        if let Some(at) = read.origin.written
            && read.origin.sound
            && read.value.is_empty()
        {
            read.origin.sound = false;
            self.sink.wrong(at, read.origin.key.clone(), format!("empty; {what}"));
        }
        read
    }

    /// A table of texts that `parse` understands, by keys of the operator's own, at most `most`; empty
    /// if it is not there.
    pub fn map<T>(
        &mut self,
        key: &'static str,
        most: usize,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Setting<BTreeMap<String, Item<T>>> {
        let path = self.path(key);
        let sink = self.sink;
        let mut sound = true;
        let mut read = self.value(key, BTreeMap::new(), |value| {
            let Value::Table(table) = value else {
                return Err(expected("a table such as { a = \"...\" }", value));
            };
            if table.entries.len() > most {
                let count = table.entries.len();
                return Err(format!("has {count} entries, but at most {most} are allowed"));
            }
            let mut items = BTreeMap::new();
            for (name, Entry { key_at, node }) in &table.entries {
                let key = format!("{path}.{}", shown_key(name));
                match text(&node.value, &parse) {
                    Ok(value) => {
                        items.insert(name.clone(), Item { value, at: *key_at, key });
                    }
                    Err(text) => {
                        sound = false;
                        sink.wrong(node.at, key, text);
                    }
                }
            }
            Ok(items)
        });
        read.origin.sound &= sound;
        read
    }

    /// The same, which must be there; `what` says what it is for.
    pub fn needed_map<T>(
        &mut self,
        key: &'static str,
        most: usize,
        what: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Setting<BTreeMap<String, Item<T>>> {
        let read = self.map(key, most, parse);
        self.need(read, what)
    }

    /// A secret by reference, if it is there.
    pub fn secret(&mut self, key: &'static str, around: &Surroundings) -> Setting<Option<Secret>> {
        self.value(key, None, |value| secret::read(value, around).map(Some))
    }

    /// A secret by reference, which must be there.
    pub fn needed_secret(
        &mut self,
        key: &'static str,
        what: &str,
        around: &Surroundings,
    ) -> Setting<Secret> {
        let none = Secret::new(String::new());
        let read = self.value(key, none, |value| secret::read(value, around));
        self.need(read, what)
    }

    /// A secret by reference or, as it may be none, in plain text. It must be there.
    pub fn needed_secret_or_plain(
        &mut self,
        key: &'static str,
        what: &str,
        around: &Surroundings,
        check: impl FnOnce(&str) -> Result<(), String>,
    ) -> Setting<Secret> {
        let read = self.secret_or_plain(key, "", around, check);
        self.need(read, what)
    }

    /// The same, or the default.
    pub fn secret_or_plain(
        &mut self,
        key: &'static str,
        default: &str,
        around: &Surroundings,
        check: impl FnOnce(&str) -> Result<(), String>,
    ) -> Setting<Secret> {
        self.value(key, Secret::new(default.to_owned()), |value| {
            let plain = if let Value::Text(plain) = value { Some(plain.clone()) } else { None };
            let known = plain.is_some() || around.reads_secrets;
            let secret =
                plain.map_or_else(|| secret::read(value, around), |p| Ok(Secret::new(p)))?;
            if known {
                check(secret.expose())?;
            }
            Ok(secret)
        })
    }

    /// Does not read these keys, but calls none of them unknown: which are known depends on a value
    /// that made no sense.
    pub fn let_pass(&mut self, keys: &'static [&'static str]) {
        self.known.extend(keys);
    }

    /// Notes a fault unless a relation between settings holds. It is put where the first of them is
    /// written that is written at all, else to the table. Where a value made no sense, or may be in
    /// what could not be read, there is nothing to compare.
    pub fn relation(&self, holds: bool, between: &[&Origin], text: impl Into<String>) {
        let sound = between.iter().all(|origin| origin.sound);
        let lost = self.sink.is_incomplete() && between.iter().any(|o| o.written.is_none());
        if holds || !sound || lost {
            return;
        }
        let first = between.iter().find_map(|origin| Some((origin.written?, &origin.key)));
        let (at, key) = first.unwrap_or((self.table.at, &self.path));
        self.sink.wrong(at, key.clone(), text.into());
    }

    /// Notes that the table as a whole lacks something.
    pub fn missing(&self, text: &str) {
        self.sink.missing(self.table.at, self.path.clone(), text.to_owned());
    }

    /// Notes that an item is wrong.
    pub fn wrong<T>(&self, item: &Item<T>, text: &str) {
        self.sink.wrong(item.at, item.key.clone(), text.to_owned());
    }

    /// Notes that an item is at two places.
    pub fn clash<T>(&self, item: &Item<T>, text: String, see: Place) {
        self.sink.clash(item.at, item.key.clone(), text, see);
    }

    fn read<T>(
        path: String,
        table: &'a Table,
        sink: &'a Sink,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let mut section = Self { path, table, known: Vec::new(), sink };
        let outcome = read(&mut section);
        section.report_unknown();
        outcome
    }

    fn report_unknown(&self) {
        for (key, entry) in &self.table.entries {
            if self.known.contains(&key.as_str()) {
                continue;
            }
            // Words are only found for what will be shown: comparing costs time.
            let text = if self.sink.is_full() {
                String::new()
            } else if let Some(near) = values::nearest(key, &self.known) {
                format!("unknown key; did you mean \"{near}\"?")
            } else {
                let mut known = self.known.clone();
                known.sort_unstable();
                // A template is read once for each of its items.
                known.dedup();
                format!("unknown key; known here are {}", known.join(", "))
            };
            self.sink.wrong(entry.key_at, self.path(&shown_key(key)), text);
        }
    }

    fn value<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Setting<T> {
        let path = self.path(key);
        let Some(Node { at, value }) = self.take(key).map(|entry| &entry.node) else {
            let origin = Origin { key: path, written: None, sound: true };
            return Setting { value: default, origin };
        };
        let (value, sound) = match parse(value) {
            Ok(value) => (value, true),
            Err(text) => {
                self.sink.wrong(*at, path.clone(), text);
                (default, false)
            }
        };
        Setting { value, origin: Origin { key: path, written: Some(*at), sound } }
    }

    fn need<T>(&self, mut read: Setting<T>, what: &str) -> Setting<T> {
        if !read.is_written() {
            read.origin.sound = false;
            self.sink.missing(self.table.at, read.origin.key.clone(), format!("missing; {what}"));
        }
        read
    }

    fn table_at(&mut self, key: &'static str) -> Option<&'a Table> {
        let node = &self.take(key)?.node;
        if let Value::Table(table) = &node.value {
            return Some(table);
        }
        self.sink.wrong(node.at, self.path(key), expected("a table", &node.value));
        None
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Entry> {
        self.known.push(key);
        self.table.entries.get(key)
    }

    fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

fn text<T>(value: &Value, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, String> {
    let Value::Text(text) = value else { return Err(expected("a text in quotes", value)) };
    parse(text)
}

fn expected(what: &str, value: &Value) -> String {
    format!("must be {what}, but is {}", value.kind())
}

/// A key as it can be printed: on one line, and not a page of it.
fn shown_key(key: &str) -> String {
    let bare = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '_';
    let mut shown: String = key.chars().take(KEY_CHARS_MAX).flat_map(char::escape_debug).collect();
    if key.chars().nth(KEY_CHARS_MAX).is_some() {
        shown.push('…');
    }
    if key.is_empty() || !key.chars().all(bare) { format!("\"{shown}\"") } else { shown }
}
