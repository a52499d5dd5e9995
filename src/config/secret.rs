//! A text that is never shown, and the places where it may be kept.
//!
//! A secret stands in the configuration as a reference, so that the configuration can be shown to
//! people and kept in a repository:
//!
//! ```toml
//! password = { credential = "store-password" }  # /etc/understudy/credentials/store-password
//! password = { file = "/etc/understudy/store.password" }
//! password = { env = "STORE_PASSWORD" }
//! ```

use std::fmt;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use thiserror::Error;

use super::document::{self, Value};
use super::load::Surroundings;

/// Size of a secret. Whole keys of RSA fit; what is larger is another file.
const SECRET_BYTES_MAX: u64 = 16 * 1024;

/// How the packaged unit calls the directory of credentials, as in `LoadCredential=understudy:…`.
/// systemd puts it and "_" in front of the name of each file.
const DIRECTORY: &str = "understudy";

/// A password, or an address with one in it. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Reads the secret that `value` refers to; an empty one if secrets are not read here.
pub(super) fn read(value: &Value, around: &Surroundings) -> Result<Secret, String> {
    let secret = match reference(value) {
        Ok(_) if !around.reads_secrets => return Ok(Secret::new(String::new())),
        Ok(Reference::Credential(name)) => credential(name, around),
        Ok(Reference::File(path)) => file(Path::new(path), Readers::OwnerAndGroup),
        Ok(Reference::Variable(name)) => variable(name, around),
        Err(fault) => Err(fault),
    };
    secret.and_then(checked).map_err(|fault| match std::error::Error::source(&fault) {
        Some(cause) => format!("{fault}: {cause}"),
        None => fault.to_string(),
    })
}

/// Why there is no secret. No text repeats what is written in the configuration, except the path of
/// a file that exists: who confuses a secret with its name must not find it in the journal.
#[derive(Debug, Error)]
enum Fault {
    #[error(
        "a secret does not belong into this file; keep it elsewhere and write \
         {{ credential = \"NAME\" }}, {{ file = \"/path\" }} or {{ env = \"NAME\" }}"
    )]
    Plain,
    #[error(
        "not a reference to a secret; write exactly one of {{ credential = \"NAME\" }}, \
         {{ file = \"/path\" }} or {{ env = \"NAME\" }}"
    )]
    Reference,
    #[error("a credential's name is that of a file, without \"/\"")]
    CredentialName,
    #[error(
        "systemd gave the service no credential of this name; put it into a file of this name in \
         {directory}, with mode 0600, then: systemctl restart understudy"
    )]
    CredentialNotLoaded { directory: String },
    #[error(
        "there is no such credential in {directory}, where it is looked for when systemd does not \
         give any; are you root?"
    )]
    CredentialMissing { directory: String },
    #[error("must be an absolute path, beginning with \"/\"")]
    RelativePath,
    #[error("there is no such file")]
    NoFile,
    #[error("the file cannot be opened")]
    Open(#[source] io::Error),
    #[error("the file cannot be read")]
    Read(#[source] io::Error),
    #[error("not a regular file")]
    NotAFile,
    #[error("every user of this host may use the file; type: chmod 0600 '{path}'")]
    OpenToAll { path: String },
    #[error("the environment variable is not set, or is not text")]
    Variable,
    #[error(
        "longer than {SECRET_BYTES_MAX} bytes, so it is hardly a secret; is it the right file?"
    )]
    Long,
    #[error("the secret is empty")]
    Empty,
    #[error("the secret is not text in UTF-8")]
    NotText,
    #[error(
        "the secret has a line break or another control character in it; is it the right file?"
    )]
    Control,
}

enum Reference<'a> {
    Credential(&'a str),
    File(&'a str),
    Variable(&'a str),
}

fn reference(value: &Value) -> Result<Reference<'_>, Fault> {
    if let Value::Text(_) = value {
        return Err(Fault::Plain);
    }
    let Value::Table(table) = value else { return Err(Fault::Reference) };
    let mut entries = table.entries.iter();
    let (Some((key, entry)), None) = (entries.next(), entries.next()) else {
        return Err(Fault::Reference);
    };
    match (key.as_str(), &entry.node.value) {
        ("credential", Value::Text(name)) => Ok(Reference::Credential(name)),
        ("file", Value::Text(path)) => Ok(Reference::File(path)),
        ("env", Value::Text(name)) => Ok(Reference::Variable(name)),
        _ => Err(Fault::Reference),
    }
}

fn credential(name: &str, around: &Surroundings) -> Result<Vec<u8>, Fault> {
    if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
        return Err(Fault::CredentialName);
    }
    let at_rest = &around.credentials_at_rest;
    let directory = at_rest.display().to_string();
    match &around.credentials {
        Some(loaded) => match loaded_credential(loaded, name) {
            Err(Fault::NoFile) => Err(Fault::CredentialNotLoaded { directory }),
            outcome => outcome,
        },
        None => match file(&at_rest.join(name), Readers::OwnerAndGroup) {
            Err(Fault::NoFile) => Err(Fault::CredentialMissing { directory }),
            outcome => outcome,
        },
    }
}

/// A credential is there under its name if the unit loads it by itself, and under a longer one if it
/// came with the whole directory. systemd has already seen to who may read it.
fn loaded_credential(directory: &Path, name: &str) -> Result<Vec<u8>, Fault> {
    match file(&directory.join(name), Readers::Anyone) {
        Err(Fault::NoFile) => file(&directory.join(format!("{DIRECTORY}_{name}")), Readers::Anyone),
        outcome => outcome,
    }
}

fn variable(name: &str, around: &Surroundings) -> Result<Vec<u8>, Fault> {
    (around.variable)(name).map(String::into_bytes).ok_or(Fault::Variable)
}

/// Who may have the right to read a file with a secret.
#[derive(PartialEq)]
enum Readers {
    Anyone,
    OwnerAndGroup,
}

fn file(path: &Path, readers: Readers) -> Result<Vec<u8>, Fault> {
    if !path.is_absolute() {
        return Err(Fault::RelativePath);
    }
    let file = document::open(path).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound { Fault::NoFile } else { Fault::Open(error) }
    })?;
    let metadata = file.metadata().map_err(Fault::Read)?;
    if !metadata.is_file() {
        return Err(Fault::NotAFile);
    }
    if readers == Readers::OwnerAndGroup && metadata.mode() & 0o007 != 0 {
        return Err(Fault::OpenToAll { path: path.display().to_string() });
    }
    let mut bytes = Vec::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Fault::Read)?;
    Ok(bytes)
}

fn checked(mut bytes: Vec<u8>) -> Result<Secret, Fault> {
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(Fault::Long);
    }
    // Editors and echo put one there.
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    let text = String::from_utf8(bytes).map_err(|_| Fault::NotText)?;
    if text.is_empty() {
        return Err(Fault::Empty);
    }
    if text.contains(char::is_control) {
        return Err(Fault::Control);
    }
    Ok(Secret::new(text))
}
