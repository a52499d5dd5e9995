//! The guard's socket: a client asks one line and is answered in lines of JSON.
//!
//! Whoever may open it may ask: its mode is 0600, so that is root and the guard's own user. A client
//! that is slow or talks nonsense is dropped.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::adapters::guard::protocol::{Question, Released, Report};

/// Longest question: a word, and the name of a node.
const QUESTION_MAX_BYTES: u64 = 4096;

/// How long a client may take for its question, and for taking in an answer.
const CLIENT_MAX: Duration = Duration::from_secs(5);

/// Clients at once: the supervisor, a gate for each unit that starts, a person. A unit that cannot ask
/// does not start, so it is generous.
const CLIENTS_MAX: usize = 128;

/// Pause after a client could not be let in.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the guard is asked, and where the answer goes.
#[derive(Debug)]
pub enum Asked {
    /// How it is; `true` for a gate that lets a unit pass if the answer is that it may.
    State(bool, oneshot::Sender<Report>),
    /// To give the lease back, to a node or to anybody.
    Release(Option<String>, oneshot::Sender<Released>),
}

/// The ends of a conversation that each client needs.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Where questions go.
    pub ask: mpsc::Sender<Asked>,
    /// How the guard is.
    pub reports: watch::Receiver<Report>,
}

/// Makes the socket and answers on it until the process ends.
///
/// # Errors
/// If it cannot be made, or another guard answers there.
pub async fn listen(path: &Path, ends: Ends) -> io::Result<()> {
    let listener = bind(path).await?;
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(CLIENTS_MAX));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors, most likely; others are at work to free some.
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let ends = ends.clone();
            tokio::spawn(async move {
                // A client that fails is gone, and it was only a client.
                let _gone = serve(stream, ends).await;
                drop(place);
            });
        }
    });
    Ok(())
}

async fn bind(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).await.is_ok() {
        let text = "another guard of this group is running and answers there";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn serve(stream: UnixStream, ends: Ends) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(QUESTION_MAX_BYTES));
    timeout(CLIENT_MAX, read.read_line(&mut line)).await??;
    match Question::parse(&line) {
        Some(Question::State) => state(false, &ends, &mut write).await,
        Some(Question::Gate) => state(true, &ends, &mut write).await,
        Some(Question::Watch) => watch(ends, &mut write).await,
        Some(Question::Release(to)) => {
            let (answer, answered) = oneshot::channel();
            ends.ask.send(Asked::Release(to, answer)).await.map_err(io::Error::other)?;
            say(&mut write, &answered.await.map_err(io::Error::other)?).await
        }
        None => {
            let text = "not a question; ask state, gate, watch or release [NODE]";
            say(&mut write, &Released::Error(text.to_owned())).await
        }
    }
}

async fn state(gate: bool, ends: &Ends, write: &mut OwnedWriteHalf) -> io::Result<()> {
    let (answer, answered) = oneshot::channel();
    ends.ask.send(Asked::State(gate, answer)).await.map_err(io::Error::other)?;
    say(write, &answered.await.map_err(io::Error::other)?).await
}

async fn watch(mut ends: Ends, write: &mut OwnedWriteHalf) -> io::Result<()> {
    // A watcher must not keep the guard from being asked.
    drop(ends.ask);
    loop {
        let report = ends.reports.borrow_and_update().clone();
        say(write, &report).await?;
        if ends.reports.changed().await.is_err() {
            return Ok(());
        }
    }
}

async fn say(write: &mut OwnedWriteHalf, answer: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(answer)?;
    text.push(b'\n');
    timeout(CLIENT_MAX, write.write_all(&text)).await??;
    Ok(())
}
