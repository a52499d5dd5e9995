//! The journal's native protocol: a datagram of fields for each message.
//!
//! The socket never blocks. A journal that is stopped or overrun must not stop a failover; messages
//! that it does not take are counted, and the next one that it takes is preceded by their number.
//! See <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::socket::{setsockopt, sockopt::SndBuf};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::logging::Record;

/// Where journald listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// Longer values are cut off: a datagram must fit into the socket's buffer whole.
const VALUE_BYTES_MAX: usize = 16 * 1024;

/// As much as systemd's own library asks for. What is not granted is not needed at our pace.
const SEND_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// The way to journald.
pub(super) struct Journal {
    socket: UnixDatagram,
    /// Looked up for each message, so that it does not matter when the socket is made anew.
    path: PathBuf,
    lost: AtomicU64,
}

impl Journal {
    pub(super) fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        // A socket of its own, to see whether anybody listens.
        UnixDatagram::unbound()?.connect(&path)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // A smaller buffer is no reason not to log.
        let _smaller = setsockopt(&socket, SndBuf, &SEND_BUFFER_BYTES);
        Ok(Self { socket, path: path.as_ref().to_owned(), lost: AtomicU64::new(0) })
    }

    fn send(&self, datagram: &[u8]) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let send = |datagram: &[u8]| self.socket.send_to(datagram, &self.path);
        if lost > 0 && send(&note_of_loss(lost)).is_err() {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
        } else if send(datagram).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.send(&encode(event));
    }
}

/// The journal's number for a level.
pub(super) const fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

fn encode(event: &Event<'_>) -> Vec<u8> {
    let metadata = event.metadata();
    let record = Record::of(event);
    let mut datagram = head(*metadata.level(), &record.text());
    for (name, value) in &record.journal {
        put(&mut datagram, name, value);
    }
    for (name, value) in &record.plain {
        // A prefix, so that none can be taken for a field of the journal's own.
        put(&mut datagram, &format!("UNDERSTUDY_{}", name.to_ascii_uppercase()), value);
    }
    if let (Some(file), Some(line)) = (metadata.file(), metadata.line())
        && record.journal.is_empty()
    {
        put(&mut datagram, "CODE_FILE", file);
        put(&mut datagram, "CODE_LINE", &line.to_string());
    }
    datagram
}

fn note_of_loss(lost: u64) -> Vec<u8> {
    let text = format!("{lost} messages are missing here, the journal did not take them in time");
    head(Level::WARN, &text)
}

fn head(level: Level, text: &str) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(512);
    put(&mut datagram, "PRIORITY", &priority(level).to_string());
    put(&mut datagram, "SYSLOG_IDENTIFIER", "understudy");
    put(&mut datagram, "MESSAGE", text);
    datagram
}

/// Appends a field in the form for values that may contain line breaks.
fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    let value = value.as_bytes();
    let value = value.get(..VALUE_BYTES_MAX).unwrap_or(value);
    let allowed = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_';
    datagram.extend(name.bytes().map(|b| if allowed(&b) { b } else { b'_' }));
    datagram.push(b'\n');
    datagram.extend((value.len() as u64).to_le_bytes());
    datagram.extend(value);
    datagram.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::telemetry::logging::About;
    use crate::telemetry::{Notable, emit};

    /// What a journald would receive.
    struct Fake {
        _dir: tempfile::TempDir,
        socket: UnixDatagram,
        path: std::path::PathBuf,
    }

    impl Fake {
        fn listen() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("socket");
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            Self { _dir: dir, socket, path }
        }

        fn receive(&self) -> BTreeMap<String, String> {
            let mut buffer = vec![0; 256 * 1024];
            let length = self.socket.recv(&mut buffer).unwrap();
            decode(&buffer[..length])
        }
    }

    fn decode(mut datagram: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while !datagram.is_empty() {
            let end = datagram.iter().position(|b| *b == b'\n').unwrap();
            let name = String::from_utf8(datagram[..end].to_vec()).unwrap();
            let length: [u8; 8] = datagram[end + 1..end + 9].try_into().unwrap();
            let value_end = end + 9 + usize::try_from(u64::from_le_bytes(length)).unwrap();
            let value = String::from_utf8(datagram[end + 9..value_end].to_vec()).unwrap();
            assert_eq!(datagram[value_end], b'\n');
            assert!(fields.insert(name.clone(), value).is_none(), "{name} is there twice");
            datagram = &datagram[value_end + 1..];
        }
        fields
    }

    fn logging(fake: &Fake, log: impl FnOnce()) {
        let journal = Journal::connect(&fake.path).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), log);
    }

    fn expected(fields: &[(&str, &str)]) -> BTreeMap<String, String> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_notable_event_has_its_fields_and_no_empty_ones() {
        let fake = Fake::listen();
        logging(&fake, || {
            let (group, epoch, step) = (Some("equity"), Some(7), Some("promote"));
            let about = About { group, epoch, step, check: None };
            emit(Notable::StepDone, about, "promoted in 3 ms");
            emit(Notable::DaemonStopping, About::default(), "told to stop");
        });
        let first = expected(&[
            ("MESSAGE", "promoted in 3 ms"),
            ("MESSAGE_ID", Notable::StepDone.message_id()),
            ("PRIORITY", "6"),
            ("SYSLOG_IDENTIFIER", "understudy"),
            ("UNDERSTUDY_EPOCH", "7"),
            ("UNDERSTUDY_EVENT", "step_done"),
            ("UNDERSTUDY_GROUP", "equity"),
            ("UNDERSTUDY_STEP", "promote"),
        ]);
        assert_eq!(fake.receive(), first);
        let second = expected(&[
            ("MESSAGE", "told to stop"),
            ("MESSAGE_ID", Notable::DaemonStopping.message_id()),
            ("PRIORITY", "6"),
            ("SYSLOG_IDENTIFIER", "understudy"),
            ("UNDERSTUDY_EVENT", "daemon_stopping"),
        ]);
        assert_eq!(fake.receive(), second);
    }

    #[test]
    fn fields_of_ordinary_messages_are_in_the_text_too_and_have_a_prefix() {
        let fake = Fake::listen();
        logging(&fake, || tracing::warn!(priority = 9, "two\nlines"));
        let fields = fake.receive();
        assert_eq!(fields["MESSAGE"], "two\nlines priority=9");
        assert_eq!(
            (fields["PRIORITY"].as_str(), fields["UNDERSTUDY_PRIORITY"].as_str()),
            ("4", "9")
        );
        assert!(fields["CODE_FILE"].ends_with("journal.rs"));
    }

    #[test]
    fn a_library_cannot_set_fields_of_the_journal() {
        let fake = Fake::listen();
        logging(&fake, || tracing::error!(target: "hyper", MESSAGE_ID = "forged", "hello"));
        let fields = fake.receive();
        assert!(!fields.contains_key("MESSAGE_ID"), "{fields:?}");
    }

    #[test]
    fn a_long_message_is_cut_and_not_lost() {
        let fake = Fake::listen();
        let long = "x".repeat(1_000_000);
        logging(&fake, || tracing::info!("{long}"));
        assert_eq!(fake.receive()["MESSAGE"].len(), VALUE_BYTES_MAX);
    }

    #[test]
    fn a_journal_that_comes_back_is_found_again() {
        let mut fake = Fake::listen();
        let journal = Journal::connect(&fake.path).unwrap();
        let registry = tracing_subscriber::registry().with(journal);
        tracing::subscriber::with_default(registry, || {
            std::fs::remove_file(&fake.path).unwrap();
            tracing::info!("into the void");
            fake.socket = UnixDatagram::bind(&fake.path).unwrap();
            tracing::info!("here again");
            assert!(fake.receive()["MESSAGE"].starts_with("1 messages are missing here"));
            assert_eq!(fake.receive()["MESSAGE"], "here again");
        });
    }

    #[test]
    fn a_journal_that_takes_nothing_blocks_nobody_and_the_loss_is_told() {
        let fake = Fake::listen();
        logging(&fake, || {
            // More than any queue holds; it would hang here if the socket blocked.
            for number in 0..5000 {
                tracing::info!("message {number}");
            }
            // Room for the note and for what follows it.
            for number in 0..4 {
                assert_eq!(fake.receive()["MESSAGE"], format!("message {number}"));
            }
            tracing::info!("after");
            loop {
                let fields = fake.receive();
                if fields["MESSAGE"].contains("messages are missing here") {
                    assert_eq!(fields["PRIORITY"], "4");
                    break;
                }
                assert!(fields["MESSAGE"].starts_with("message "), "{fields:?}");
            }
            assert_eq!(fake.receive()["MESSAGE"], "after");
        });
    }
}
