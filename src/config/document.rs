//! Files of TOML as one tree, in which each key and value knows its place.
//!
//! `understudy.toml` comes first, then `understudy.toml.d/*.toml` by name. Where two files say
//! something about the same key the later one wins; tables written as `[table]` are merged, while
//! arrays and inline tables such as `{ file = "/x" }` are one value and replaced whole.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use toml::de::{DeTable, DeValue};

use super::fault::{Position, Sink};

/// Size of one file. A thousand groups with their comments fit several times; what is larger is not
/// a configuration, and parsing it would only delay saying so.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Drop-ins. A directory with more was filled by a mistake, such as a backup of something else.
const DROP_INS_MAX: usize = 100;

/// All files of a configuration.
pub(super) struct Document {
    sources: Vec<Source>,
    /// What they say together.
    pub root: Table,
}

/// A place in one of the files, or a whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Which of the files, in the order of reading.
    pub file: usize,
    /// Byte in it; `None` for the whole file.
    pub offset: Option<usize>,
}

impl Place {
    /// The main file as a whole.
    pub const MAIN: Self = Self { file: 0, offset: None };
}

/// A table and what is in it.
pub(super) struct Table {
    /// Its header, or what stands for it.
    pub at: Place,
    /// By key.
    pub entries: BTreeMap<String, Entry>,
    /// Written as `{ ... }`.
    inline: bool,
}

impl Table {
    /// A table that nobody wrote.
    pub fn absent(at: Place) -> Self {
        Self { at, entries: BTreeMap::new(), inline: false }
    }
}

/// A key with its value.
pub(super) struct Entry {
    /// Where the key is.
    pub key_at: Place,
    /// The value.
    pub node: Node,
}

/// A value.
pub(super) struct Node {
    /// Where it is.
    pub at: Place,
    /// What it is.
    pub value: Value,
}

/// Kinds of value that a configuration is made of.
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Node>),
    Table(Table),
    /// A kind that no key takes, by its name.
    Other(&'static str),
}

impl Value {
    /// Name of the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

struct Source {
    path: PathBuf,
    text: String,
    line_starts: Vec<usize>,
}

impl Document {
    /// Reads `path` and its drop-ins. What cannot be read is noted in `sink` and left out.
    pub fn read(path: &Path, sink: &Sink) -> Self {
        let mut document = Self { sources: Vec::new(), root: Table::absent(Place::MAIN) };
        document.add(path, sink);
        let directory = drop_in_directory(path);
        match drop_ins(&directory) {
            Ok(files) if files.len() > DROP_INS_MAX => {
                let text = format!(
                    "holds {} files ending in .toml, more than the {DROP_INS_MAX} that are read",
                    files.len()
                );
                document.refuse(directory, text, sink);
            }
            Ok(files) => {
                for file in files {
                    document.add(&file, sink);
                }
            }
            Err(error) => {
                document.refuse(directory, format!("cannot be listed: {error}"), sink);
            }
        }
        document
    }

    /// The file that `place` is in.
    pub fn path(&self, place: Place) -> &Path {
        self.sources.get(place.file).map_or(Path::new(""), |source| &source.path)
    }

    /// Line of `place`, from one.
    pub fn line(&self, place: Place) -> Option<usize> {
        let source = self.sources.get(place.file)?;
        Some(source.line_starts.partition_point(|&start| Some(start) <= place.offset))
            .filter(|&line| line > 0)
    }

    /// Line and column of `place`.
    pub fn position(&self, place: Place) -> Option<Position> {
        let line = self.line(place)?;
        let source = self.sources.get(place.file)?;
        let start = source.line_starts.get(line - 1).copied()?;
        let before = source.text.get(start..place.offset?)?;
        Some(Position { line, column: before.chars().count() + 1 })
    }

    fn add(&mut self, path: &Path, sink: &Sink) {
        let bytes = match read_file(path) {
            Ok(bytes) => bytes,
            Err(text) => return self.refuse(path.to_owned(), text, sink),
        };
        let file = self.sources.len();
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let mut bytes = error.into_bytes();
                bytes.truncate(valid);
                // What comes before the fault is text, and enough to tell its line.
                self.push(path.to_owned(), String::from_utf8_lossy(&bytes).into_owned());
                let text = "not UTF-8; save the file in that encoding, if it is the right file";
                sink.unreadable(Place { file, offset: Some(valid) }, text.to_owned());
                return;
            }
        };
        let table = parse(file, &text, sink);
        self.push(path.to_owned(), text);
        merge(&mut self.root, table);
    }

    fn refuse(&mut self, path: PathBuf, text: String, sink: &Sink) {
        let file = self.sources.len();
        self.push(path, String::new());
        sink.unreadable(Place { file, offset: None }, text);
    }

    fn push(&mut self, path: PathBuf, text: String) {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(ends.map(|(end, _)| end + 1)).collect();
        self.sources.push(Source { path, text, line_starts });
    }
}

/// `understudy.toml.d` for `understudy.toml`.
fn drop_in_directory(path: &Path) -> PathBuf {
    let mut directory = path.as_os_str().to_owned();
    directory.push(".d");
    PathBuf::from(directory)
}

/// Drop-ins by name. Hidden files and other endings are what editors and package managers leave.
fn drop_ins(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let hidden = name.as_encoded_bytes().starts_with(b".");
        if !hidden && name.as_encoded_bytes().ends_with(b".toml") {
            files.push(directory.join(name));
        }
    }
    files.sort();
    Ok(files)
}

/// Opens a file for reading, at once: a pipe would otherwise be waited for.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let file = open(path).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            "there is no such file".to_owned()
        } else if error.kind() == io::ErrorKind::PermissionDenied {
            "may not be read by this user; run as root, or as the user of the service".to_owned()
        } else {
            format!("cannot be opened: {error}")
        }
    })?;
    let metadata = file.metadata().map_err(|error| format!("cannot be examined: {error}"))?;
    if metadata.is_dir() {
        return Err("is a directory, not a file".to_owned());
    }
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err("is larger than 1 MiB, so it is hardly a configuration".to_owned());
    }
    Ok(bytes)
}

fn parse(file: usize, text: &str, sink: &Sink) -> Table {
    let report = |error: &toml::de::Error| {
        let offset = error.span().map(|span| span.start);
        sink.unreadable(Place { file, offset }, format!("not TOML: {}", error.message()));
    };
    let at = Place { file, offset: None };
    let (table, errors) = DeTable::parse_recoverable(text);
    errors.iter().for_each(report);
    let ends: Vec<_> = errors.iter().filter(|error| ends_parsing(error)).collect();
    if ends.is_empty() {
        return convert_table(table.get_ref(), at, false, text);
    }
    // The rest is read without the lines that the parser could not get past.
    let text = without_lines(text, ends.into_iter().filter_map(|error| Some(error.span()?.start)));
    let (table, errors) = DeTable::parse_recoverable(&text);
    errors.iter().for_each(report);
    convert_table(table.get_ref(), at, false, &text)
}

/// Whether the parser read nothing more after this: a key without "=".
fn ends_parsing(error: &toml::de::Error) -> bool {
    error.message().starts_with("key with no value")
}

/// The text with blanks in place of the lines at `offsets`, so that all else keeps its place.
fn without_lines(text: &str, offsets: impl Iterator<Item = usize>) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for offset in offsets {
        let is_end = |byte: &u8| *byte == b'\n';
        let start = bytes[..offset].iter().rposition(is_end).map_or(0, |end| end + 1);
        let length = bytes[start..].iter().position(is_end).unwrap_or(bytes.len() - start);
        bytes[start..start + length].fill(b' ');
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn merge(into: &mut Table, from: Table) {
    for (key, entry) in from.entries {
        match (into.entries.get_mut(&key), entry) {
            (
                Some(Entry { node: Node { value: Value::Table(old), .. }, .. }),
                Entry { node: Node { value: Value::Table(new), .. }, .. },
            ) if !old.inline && !new.inline => merge(old, new),
            (_, entry) => {
                into.entries.insert(key, entry);
            }
        }
    }
}

fn convert_table(table: &DeTable<'_>, at: Place, inline: bool, text: &str) -> Table {
    let place = |offset| Place { file: at.file, offset: Some(offset) };
    let entries = table.iter().map(|(key, value)| {
        let node = convert(value.get_ref(), place(value.span().start), text);
        (key.get_ref().to_string(), Entry { key_at: place(key.span().start), node })
    });
    Table { at, entries: entries.collect(), inline }
}

fn convert(value: &DeValue<'_>, at: Place, text: &str) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("a number of more than 64 bits"), Value::Integer),
        DeValue::Float(_) => Value::Other("a fraction"),
        DeValue::Boolean(truth) => Value::Boolean(*truth),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(items) => {
            let items = items.iter().map(|item| {
                let at = Place { file: at.file, offset: Some(item.span().start) };
                convert(item.get_ref(), at, text)
            });
            Value::List(items.collect())
        }
        DeValue::Table(table) => {
            let first = at.offset.and_then(|offset| text.as_bytes().get(offset));
            Value::Table(convert_table(table, at, first == Some(&b'{'), text))
        }
    };
    Node { at, value }
}
