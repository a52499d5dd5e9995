//! One connection, opened when it is needed, with a deadline on everything.
//!
//! Keepalives and `tcp_user_timeout` find a broken network within seconds, but a frozen server
//! still acknowledges packets: only our own deadlines find that, so every wait has one. Statements
//! are unnamed and self-contained, one for each call, so that a transaction pooler may sit in
//! between.

use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::lookup_host;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, Row, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{Attempt, AttemptFault, Fault, StoreError, ends_session, says_read_only};
use crate::config::settings::{self, Host, Tls};
use crate::time::BootTime;

/// After so long without traffic the kernel asks whether the server is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(1);
/// And again after so long without an answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// So many questions without an answer break the connection: about 3 s after a cut.
const KEEPALIVE_RETRIES: u32 = 2;
/// Data that stay unacknowledged for so long break the connection. A `Duration`, because in a
/// connection string the number would be seconds here and milliseconds in libpq.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);

/// A parameter of a statement with its type, which saves the server a round trip and the pooler a
/// named statement.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// The connection, or the wish for one.
pub(super) struct Connection {
    hosts: Vec<Host>,
    config: Config,
    tls: Option<MakeRustlsConnect>,
    connect_timeout: Duration,
    live: Option<Live>,
    opened: u64,
}

/// An answer, and on which connection it came.
pub(super) struct Answer {
    pub(super) rows: Vec<Row>,
    pub(super) server: String,
    /// How many connections had been opened, this one included.
    pub(super) number: u64,
    /// When the statement was sent, on a connection that was open then.
    pub(super) sent: BootTime,
}

impl Connection {
    /// Reads certificate authorities, and does no other I/O.
    pub(super) fn new(store: &settings::Store, node: &str) -> Result<Self, StoreError> {
        let mut config = Config::new();
        config
            .dbname(&store.database)
            .user(&store.user)
            .application_name(format!("understudy {node}"))
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .keepalives(true)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(TCP_USER_TIMEOUT);
        if let Some(password) = &store.password {
            config.password(password.expose());
        }
        let tls = match &store.tls {
            Tls::Off => None,
            Tls::Verify { ca_file } => Some(MakeRustlsConnect::new(trust(ca_file.as_deref())?)),
        };
        Ok(Self {
            hosts: store.hosts.clone(),
            config,
            tls,
            connect_timeout: store.connect_timeout,
            live: None,
            opened: 0,
        })
    }

    /// Runs one statement.
    ///
    /// The call owns the connection while it lasts. If it times out, is cancelled or fails at the
    /// level of the connection, it does not give it back, and the next call opens another.
    pub(super) async fn query(
        &mut self,
        limit: Duration,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Answer, Fault> {
        let live = self.take().await?;
        let sent = BootTime::now();
        let outcome = timeout(limit, live.client.query_typed(sql, params)).await;
        let (server, number) = (live.server.clone(), live.number);
        let rows = self.settle(live, limit, outcome)?;
        Ok(Answer { rows, server, number, sent })
    }

    /// Runs a script of several statements without parameters.
    pub(super) async fn script(&mut self, limit: Duration, sql: &str) -> Result<(), Fault> {
        let live = self.take().await?;
        let outcome = timeout(limit, live.client.batch_execute(sql)).await;
        self.settle(live, limit, outcome)
    }

    /// The same for checks, which only read and may ask a server that others write to.
    pub(super) fn for_checks(mut self) -> Self {
        self.config.target_session_attrs(TargetSessionAttrs::Any);
        self
    }

    /// Runs a script of several statements, and returns the rows of all of them as texts.
    pub(super) async fn texts(
        &mut self,
        limit: Duration,
        sql: &str,
    ) -> Result<Vec<SimpleQueryMessage>, Fault> {
        let live = self.take().await?;
        let outcome = timeout(limit, live.client.simple_query(sql)).await;
        self.settle(live, limit, outcome)
    }

    /// The next call opens a new connection, and looks for a writable server again.
    pub(super) fn drop_session(&mut self) {
        self.live = None;
    }

    async fn take(&mut self) -> Result<Live, Fault> {
        match self.live.take() {
            Some(live) if !live.client.is_closed() => Ok(live),
            Some(_) | None => self.open().await,
        }
    }

    fn settle<T>(
        &mut self,
        live: Live,
        limit: Duration,
        outcome: Result<Result<T, tokio_postgres::Error>, tokio::time::error::Elapsed>,
    ) -> Result<T, Fault> {
        match outcome {
            Ok(Ok(value)) => {
                self.live = Some(live);
                Ok(value)
            }
            Ok(Err(cause)) => {
                let server = live.server.clone();
                // A server that has become read-only is left, to look for the writable one.
                if !ends_session(&cause) && !says_read_only(&cause) {
                    self.live = Some(live);
                }
                Err(Fault::Query { server, cause })
            }
            Err(_) => Err(Fault::Timeout { server: live.server.clone(), limit }),
        }
    }

    /// Tries the servers in order. `connect_timeout` is for all of them together, and each gets its
    /// share of what is left, so that one that hangs does not keep the next from being tried.
    async fn open(&mut self) -> Result<Live, Fault> {
        let deadline = BootTime::now() + self.connect_timeout;
        let mut failed = Vec::new();
        for (tried, host) in self.hosts.iter().enumerate() {
            let share = share_until(deadline, self.hosts.len() - tried);
            match self.open_host(host, share, &mut failed).await {
                Some(mut live) => {
                    self.opened += 1;
                    live.number = self.opened;
                    return Ok(live);
                }
                None => continue,
            }
        }
        Err(Fault::Connect(failed))
    }

    async fn open_host(
        &self,
        host: &Host,
        limit: Duration,
        failed: &mut Vec<Attempt>,
    ) -> Option<Live> {
        let deadline = BootTime::now() + limit;
        match host {
            Host::Unix(directory, port) => {
                let server = format!("{}/.s.PGSQL.{port}", directory.display());
                let mut config = self.config.clone();
                // Nothing to encrypt on a socket of this host, and the server would refuse to.
                config.host_path(directory).port(*port).ssl_mode(SslMode::Disable);
                keep(login(&config, None, server.clone(), limit).await, server, failed)
            }
            Host::Tcp(name, port) => {
                let server = format!("{name}:{port}");
                let addresses = match timeout(limit, lookup_host((name.as_str(), *port))).await {
                    Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
                    Ok(Err(cause)) => {
                        failed.push(Attempt { server, why: AttemptFault::Resolve(cause) });
                        return None;
                    }
                    Err(_) => {
                        failed.push(Attempt { server, why: AttemptFault::Timeout(limit) });
                        return None;
                    }
                };
                if addresses.is_empty() {
                    let cause = io::Error::new(io::ErrorKind::NotFound, "no address");
                    failed.push(Attempt { server, why: AttemptFault::Resolve(cause) });
                    return None;
                }
                for (tried, address) in addresses.iter().enumerate() {
                    let server = match name.parse::<std::net::IpAddr>() {
                        Ok(_) => server.clone(),
                        Err(_) => format!("{server} ({})", address.ip()),
                    };
                    let mut config = self.config.clone();
                    config.host(name).hostaddr(address.ip()).port(*port).ssl_mode(
                        if self.tls.is_some() { SslMode::Require } else { SslMode::Disable },
                    );
                    let share = share_until(deadline, addresses.len() - tried);
                    let outcome = login(&config, self.tls.clone(), server.clone(), share).await;
                    if let Some(live) = keep(outcome, server, failed) {
                        return Some(live);
                    }
                }
                None
            }
        }
    }
}

/// An open session. Dropping it closes the socket at once, without a word to a server that may be
/// frozen.
struct Live {
    client: Client,
    driver: JoinHandle<()>,
    server: String,
    number: u64,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn login(
    config: &Config,
    tls: Option<MakeRustlsConnect>,
    server: String,
    limit: Duration,
) -> Result<Live, AttemptFault> {
    let (client, driver) = match tls {
        Some(tls) => within(limit, config.connect(tls)).await.map(drive)?,
        None => within(limit, config.connect(NoTls)).await.map(drive)?,
    };
    Ok(Live { client, driver, server, number: 0 })
}

async fn within<T>(
    limit: Duration,
    login: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, AttemptFault> {
    match timeout(limit, login).await {
        Ok(Ok(session)) => Ok(session),
        Ok(Err(cause)) if refuses_writes(&cause) => Err(AttemptFault::ReadOnly),
        Ok(Err(cause)) => Err(AttemptFault::Refused(cause)),
        Err(_) => Err(AttemptFault::Timeout(limit)),
    }
}

/// Runs the protocol beside us. Its error, if any, reaches the call that waits for an answer.
fn drive<S, T>(
    (client, connection): (Client, tokio_postgres::Connection<S, T>),
) -> (Client, JoinHandle<()>)
where
    tokio_postgres::Connection<S, T>:
        Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
{
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to Postgres ended");
        }
    });
    (client, driver)
}

fn keep(
    outcome: Result<Live, AttemptFault>,
    server: String,
    failed: &mut Vec<Attempt>,
) -> Option<Live> {
    match outcome {
        Ok(live) => Some(live),
        Err(why) => {
            failed.push(Attempt { server, why });
            None
        }
    }
}

/// What `target_session_attrs=read-write` answers: an error of the client's own, which no system
/// call gave.
fn refuses_writes(cause: &tokio_postgres::Error) -> bool {
    std::error::Error::source(cause)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|e| e.kind() == io::ErrorKind::PermissionDenied && e.raw_os_error().is_none())
}

fn share_until(deadline: BootTime, left: usize) -> Duration {
    let left = u32::try_from(left).unwrap_or(u32::MAX).max(1);
    deadline.since(BootTime::now()) / left
}

fn trust(ca_file: Option<&Path>) -> Result<ClientConfig, StoreError> {
    let (place, certificates) = match ca_file {
        Some(path) => (path.display().to_string(), read_certificates(path)?),
        None => (
            "the system's store".to_owned(),
            // Certificates of the system that cannot be read are only fewer to trust.
            rustls_native_certs::load_native_certs().certs,
        ),
    };
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates);
    if usable == 0 {
        return Err(StoreError::NoCertificates { place });
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(StoreError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let fail = |source| StoreError::CaFile { path: path.to_owned(), source };
    let pem = std::fs::read(path).map_err(fail)?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|cause| fail(io::Error::new(io::ErrorKind::InvalidData, cause)))
}
