//! The control socket: how the command line talks to the daemon.
//!
//! One line of JSON in, one out. Whoever may open the socket may ask: its mode is 0660, so that is
//! root and the daemon's own user and group. A client that is slow, silent or talks nonsense is
//! dropped; it never reaches the loop.

pub mod protocol;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::{Request, Response};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// Longest question; a group's name is the only thing in it without a length of its own.
const REQUEST_MAX_BYTES: u64 = 64 * 1024;

/// Longest answer: the status of ten thousand groups.
const RESPONSE_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// How long a client may take for a question, and the daemon for an answer.
const EXCHANGE_MAX: Duration = Duration::from_secs(5);

/// Clients at once. A person and a few scripts need a handful.
const CLIENTS_MAX: usize = 32;

/// Pause after a client could not be let in.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A question, and where its answer goes.
pub type Exchange = (Request, oneshot::Sender<Response>);

/// Why the daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket could not be made.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nobody listens.
    #[error(
        "understudy is not running here (nobody answers on {}); start it with \
         `systemctl start understudy`",
        path.display()
    )]
    NotRunning {
        /// Where.
        path: PathBuf,
    },
    /// The socket is for others.
    #[error("only root and the group of understudy may talk to the daemon ({})", path.display())]
    Forbidden {
        /// Where.
        path: PathBuf,
    },
    /// It did not answer, or not in our language.
    #[error("understudy is running but did not answer on {}", path.display())]
    NoAnswer {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Where the socket is.
#[must_use]
pub fn socket_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("control.sock")
}

/// Makes the socket and hands each question to `exchanges`. Runs until the task is dropped.
///
/// # Errors
/// If the socket cannot be made, or another daemon answers on it.
pub async fn listen(
    runtime_dir: &Path,
    exchanges: mpsc::Sender<Exchange>,
) -> Result<(), ControlError> {
    let path = socket_path(runtime_dir);
    let listener =
        bind(&path).await.map_err(|source| ControlError::Listen { path: path.clone(), source })?;
    tokio::spawn(async move {
        let places = std::sync::Arc::new(Semaphore::new(CLIENTS_MAX));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors, most likely; others are at work to free some.
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let exchanges = exchanges.clone();
            tokio::spawn(async move {
                // A client that fails is gone, and it was only a client.
                let _gone = timeout(EXCHANGE_MAX * 2, serve(stream, exchanges)).await;
                drop(place);
            });
        }
    });
    Ok(())
}

async fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another understudy is running and answers there",
        ));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

async fn serve(stream: UnixStream, exchanges: mpsc::Sender<Exchange>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(REQUEST_MAX_BYTES));
    timeout(EXCHANGE_MAX, read.read_line(&mut line)).await??;
    let response = match serde_json::from_str::<Request>(&line) {
        Ok(request) => {
            let (answer, answered) = oneshot::channel();
            exchanges.send((request, answer)).await.map_err(io::Error::other)?;
            answered.await.map_err(io::Error::other)?
        }
        Err(error) => Response::Refused { text: format!("not a question: {error}") },
    };
    let mut text = serde_json::to_vec(&response)?;
    text.push(b'\n');
    timeout(EXCHANGE_MAX, write.write_all(&text)).await??;
    Ok(())
}

/// Asks the daemon.
///
/// # Errors
/// If it is not running, may not be asked, or does not answer within a few seconds.
pub async fn ask(runtime_dir: &Path, request: &Request) -> Result<Response, ControlError> {
    let path = socket_path(runtime_dir);
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(ControlError::Forbidden { path });
        }
        Err(_) => return Err(ControlError::NotRunning { path }),
    };
    timeout(EXCHANGE_MAX * 2, exchange(stream, request))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| ControlError::NoAnswer { path, source })
}

async fn exchange(stream: UnixStream, request: &Request) -> io::Result<Response> {
    let (read, mut write) = stream.into_split();
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    write.write_all(&text).await?;
    let mut line = String::new();
    BufReader::new(read.take(RESPONSE_MAX_BYTES)).read_line(&mut line).await?;
    Ok(serde_json::from_str(&line)?)
}
