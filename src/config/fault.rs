//! What is wrong with a configuration, said so that a person can mend all of it in one go.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use super::document::{Document, Place};

/// Faults that are printed. Who has more than fifty has given the wrong file, or made one mistake
/// many times; either is plain from the first screen.
pub const SHOWN_MAX: usize = 50;

/// Faults that are kept to choose those from. A megabyte of garbage has hundreds of thousands.
const KEPT_MAX: usize = 1_000;

/// Everything that is wrong with a configuration, in the order of the files. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    shown: Vec<Fault>,
    omitted: usize,
}

impl Faults {
    /// The first of them, at most [`SHOWN_MAX`].
    #[must_use]
    pub fn shown(&self) -> &[Fault] {
        &self.shown
    }

    /// How many more there are.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.shown.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{fault}")?;
        }
        match self.omitted {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl Error for Faults {}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// Where in it, unless the fault is that something is not there.
    pub position: Option<Position>,
    /// The dotted key, empty if the fault is with the file.
    pub key: String,
    /// What is wrong and what to do.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.text)
    }
}

/// A place in a text, counted from one as editors do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// Gathers faults while a configuration is read.
#[derive(Default)]
pub(super) struct Sink {
    notes: RefCell<BTreeSet<Note>>,
    overflow: Cell<usize>,
    /// A file could not be read to its end, so that what is missing may be there after all.
    incomplete: Cell<bool>,
}

/// A fault whose place is not yet a line. The order of the fields is the order of the report.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Note {
    at: Place,
    kind: Kind,
    key: String,
    text: String,
    see: Option<Place>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Syntax,
    Meaning,
}

impl Sink {
    /// Notes that a file, or a part of it, could not be read at all.
    pub fn unreadable(&self, at: Place, text: String) {
        self.incomplete.set(true);
        self.note(Note { at, kind: Kind::Syntax, key: String::new(), text, see: None });
    }

    /// Notes that what is written for `key` makes no sense.
    pub fn wrong(&self, at: Place, key: String, text: String) {
        self.note(Note { at, kind: Kind::Meaning, key, text, see: None });
    }

    /// Notes that what is written for `key` clashes with what is written elsewhere.
    pub fn clash(&self, at: Place, key: String, text: String, see: Place) {
        self.note(Note { at, kind: Kind::Meaning, key, text, see: Some(see) });
    }

    /// Notes that something is not there, unless it may be in what could not be read.
    pub fn missing(&self, at: Place, key: String, text: String) {
        if !self.incomplete.get() {
            self.wrong(at, key, text);
        }
    }

    /// Whether some of the configuration could not be read.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete.get()
    }

    /// Whether further faults are only counted, so that it is not worth composing them.
    pub fn is_full(&self) -> bool {
        self.notes.borrow().len() >= KEPT_MAX
    }

    /// The faults, or `None` if there are none.
    pub fn into_faults(self, document: &Document) -> Option<Faults> {
        let notes = self.notes.into_inner();
        if notes.is_empty() {
            return None;
        }
        // A line that is not TOML was guessed at by the parser. One fault says so; what the guess
        // then led to would only confuse.
        let mut broken = BTreeSet::new();
        let mut shown = Vec::new();
        let mut omitted = self.overflow.get();
        let syntax_lines: BTreeSet<_> = notes
            .iter()
            .filter(|note| note.kind == Kind::Syntax)
            .map(|note| (note.at.file, document.line(note.at)))
            .collect();
        for note in notes {
            let line = (note.at.file, document.line(note.at));
            let follows = match note.kind {
                Kind::Syntax => !broken.insert(line),
                Kind::Meaning => line.1.is_some() && syntax_lines.contains(&line),
            };
            if follows {
                continue;
            }
            if shown.len() == SHOWN_MAX {
                omitted += 1;
                continue;
            }
            shown.push(fault(note, document));
        }
        Some(Faults { shown, omitted })
    }

    fn note(&self, note: Note) {
        if self.is_full() {
            self.overflow.set(self.overflow.get() + 1);
        } else {
            self.notes.borrow_mut().insert(note);
        }
    }
}

fn fault(note: Note, document: &Document) -> Fault {
    let mut text = note.text;
    if let Some(see) = note.see {
        let file = document.path(see).display();
        match document.position(see) {
            Some(Position { line, column }) => text += &format!(" (see {file}:{line}:{column})"),
            None => text += &format!(" (see {file})"),
        }
    }
    Fault {
        file: document.path(note.at).to_owned(),
        position: document.position(note.at),
        key: note.key,
        text,
    }
}
