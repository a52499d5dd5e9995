//! Sockets and their limits. Nothing that a client does costs more than its own connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::site::Site;
use super::tls::{self, Encryption};
use crate::config::settings::{Identity, Listen};
use crate::error::chain;

/// Connections to one address at once. A scraper, a probe and some people with the page open need a
/// handful. One more closes the oldest, so that clients that hold on to theirs lock nobody out.
const CONNECTIONS_MAX: usize = 64;

/// How long a client may take for the head of a request, or between two requests.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// How long a client may take to agree on encryption.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// How long a connection may last, whatever is done on it. Browsers open a new one.
const CONNECTION_MAX: Duration = Duration::from_secs(600);

/// Size of a request's head, which is all that is ever read of one. Browsers send some kilobytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Headers of a request. Browsers send about twenty.
const HEADERS_MAX: usize = 64;

/// Pause before an address that could not be listened on is tried again: an address may appear
/// late, and a person may end the other program.
const RETRY_EVERY: Duration = Duration::from_secs(30);

/// Pause after a client could not be let in.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens until the task is dropped.
pub(super) async fn listen(
    listen: Listen,
    mut tls: Encryption,
    identity: Option<Identity>,
    site: Arc<Site>,
) {
    loop {
        let opened = match &tls {
            Err(fault) => Err(fault.clone()),
            Ok(tls) => Door::open(&listen, tls.clone().map(TlsAcceptor::from)).await,
        };
        match opened {
            Ok(door) => {
                site.note(&listen, None);
                door.serve(&site).await;
            }
            Err(fault) => site.note(&listen, Some(fault)),
        }
        sleep(RETRY_EVERY).await;
        if let (Err(_), Some(identity)) = (&tls, &identity) {
            tls = tls::load(identity).map(Some).map_err(|fault| chain(&fault));
        }
    }
}

/// A socket that is listened on.
enum Door {
    Tcp(TcpListener, Option<TlsAcceptor>),
    Unix(UnixListener),
}

impl Door {
    async fn open(listen: &Listen, tls: Option<TlsAcceptor>) -> Result<Self, String> {
        match listen {
            Listen::Tcp(address) => {
                TcpListener::bind(address).await.map(|listener| Self::Tcp(listener, tls))
            }
            Listen::Unix(path) => open_unix(path).await.map(Self::Unix),
        }
        .map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => "another program listens there".to_owned(),
            io::ErrorKind::AddrNotAvailable => "this host has no such address".to_owned(),
            _ => error.to_string(),
        })
    }

    async fn serve(self, site: &Arc<Site>) {
        let mut connections = Connections::default();
        loop {
            let accepted = match &self {
                Self::Tcp(listener, tls) => {
                    listener.accept().await.map(|(stream, _)| Client::Tcp(stream, tls.clone()))
                }
                Self::Unix(listener) => {
                    listener.accept().await.map(|(stream, _)| Client::Unix(stream))
                }
            };
            match accepted {
                Ok(client) => connections.add(client, site),
                // Out of file descriptors, most likely.
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }
}

async fn open_unix(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
            return Err(io::Error::other("there is something that is not a socket"));
        }
        Ok(_) => std::fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Who came in.
enum Client {
    Tcp(TcpStream, Option<TlsAcceptor>),
    Unix(UnixStream),
}

/// The connections of one door, oldest first. They end with it.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    oldest_first: VecDeque<AbortHandle>,
}

impl Connections {
    fn add(&mut self, client: Client, site: &Arc<Site>) {
        while self.tasks.try_join_next().is_some() {}
        if self.oldest_first.len() >= CONNECTIONS_MAX {
            self.oldest_first.retain(|task| !task.is_finished());
        }
        if self.oldest_first.len() >= CONNECTIONS_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            oldest.abort();
            site.dropped();
        }
        let site = site.clone();
        let task = self.tasks.spawn(async move {
            // A client that is too slow is gone, and it was only a client.
            let _gone = timeout(CONNECTION_MAX, welcome(client, site)).await;
        });
        self.oldest_first.push_back(task);
    }
}

async fn welcome(client: Client, site: Arc<Site>) {
    match client {
        Client::Unix(stream) => talk(stream, site, false).await,
        Client::Tcp(stream, None) => talk(stream, site, true).await,
        Client::Tcp(stream, Some(tls)) => {
            if let Ok(Ok(stream)) = timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
                talk(stream, site, true).await;
            }
        }
    }
}

async fn talk<S>(stream: S, site: Arc<Site>, named: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(site.answer(request, named).await) }
    });
    let spoken = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = spoken {
        tracing::debug!(%error, "a client of the HTTP listener");
    }
}
