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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::telemetry::Metrics;
    use crate::web::Web;

    /// What a client gets that sends these bytes, and then waits for so long.
    fn answer(bytes: &[u8], token: bool, patience: Duration) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (web, _reports) = Web::new(Metrics::default(), Arc::new(crate::web::no_checks));
        let site = Arc::new(web.site_for_tests(token));
        runtime.block_on(async move {
            let (mut client, server) = tokio::io::duplex(64 * 1024);
            let served = tokio::spawn(talk(server, site, true));
            client.write_all(bytes).await.unwrap();
            let mut said = Vec::new();
            // Half a request is waited for, and a stream of events has no end.
            while let Ok(Ok(1..)) = timeout(patience, client.read_buf(&mut said)).await {}
            served.abort();
            let ended = served.await;
            assert!(!ended.is_err_and(|error| error.is_panic()), "it panicked");
            String::from_utf8_lossy(&said).into_owned()
        })
    }

    fn is_in_order(said: &str) -> bool {
        said.is_empty() || said.starts_with("HTTP/1.1 ") || said.starts_with("HTTP/1.0 ")
    }

    /// Longer than any answer takes that is not made to wait.
    const BRIEFLY: Duration = Duration::from_millis(30);

    /// Longer than that of a stranger.
    const LONG: Duration = Duration::from_secs(10);

    /// Pieces that requests are made of, good ones and others.
    const PIECES: [&str; 28] = [
        "GET ",
        "HEAD ",
        "POST ",
        "/",
        "/metrics",
        "/health/ready",
        "/api/v1/status",
        "/api/v1/history/",
        "/api/v1/events",
        "?group=",
        "limit=",
        "&",
        "%00",
        "..",
        "//",
        "\u{e9}",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        "Host: localhost\r\n",
        "Host: [::1\r\n",
        "Host: a b\r\n",
        "Authorization: Basic ",
        "Authorization: Bearer ",
        "e3g6eX0=",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "\r\n",
        "\0",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn no_request_breaks_it(
            pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..14),
            token in any::<bool>(),
        ) {
            let request = pieces.concat();
            let said = answer(request.as_bytes(), token, BRIEFLY);
            prop_assert!(is_in_order(&said), "{request:?}: {said}");
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let said = answer(&bytes, false, BRIEFLY);
            prop_assert!(is_in_order(&said), "{said}");
        }
    }

    #[test]
    fn a_good_request_among_them_is_answered() {
        let request = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        assert!(answer(request, true, LONG).starts_with("HTTP/1.1 200"));
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        assert!(answer(request, true, LONG).starts_with("HTTP/1.1 401"));
        assert!(answer(request, false, LONG).ends_with("# EOF\n"));
    }
}
