//! A connection that speaks the replication protocol, which is no request and answer: after the
//! handshake the server sends for as long as it likes.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, cmd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connection::RedisError;
use crate::config::settings::{self, Host, Tls};

/// A line of the handshake. The longest is an error with a sentence.
const LINE_BYTES_MAX: u64 = 4096;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 256 * 1024;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection to one server, logged in.
pub(super) struct Wire {
    stream: BufReader<Box<dyn Stream>>,
    address: String,
}

impl Wire {
    /// Connects and logs in, each within the deadline of a call.
    pub(super) async fn open(host: &Host, settings: &settings::Redis) -> Result<Self, RedisError> {
        let address = super::connection::name(host);
        let deadline = settings.call_timeout;
        let stream = timeout(deadline, connect(host, &settings.tls))
            .await
            .map_err(|_| RedisError::Deadline { address: address.clone(), after: deadline })?
            .map_err(|source| RedisError::Connect {
                address: address.clone(),
                source: source.into(),
            })?;
        let mut wire = Self { stream: BufReader::with_capacity(CHUNK_BYTES, stream), address };
        if let Some(password) = &settings.password {
            let mut login = cmd("AUTH");
            if let Some(user) = &settings.user {
                login.arg(user);
            }
            let answer = wire.ask(login.arg(password.expose()), deadline).await?;
            if let Some(text) = answer.strip_prefix('-') {
                return Err(RedisError::Login {
                    address: wire.address,
                    user: settings.user.clone().unwrap_or_else(|| "default".to_owned()),
                    text: text.to_owned(),
                });
            }
        }
        Ok(wire)
    }

    /// Sends a command and returns the line that answers it, as [`Wire::line`] does.
    pub(super) async fn ask(
        &mut self,
        command: &Cmd,
        silence_max: Duration,
    ) -> Result<String, RedisError> {
        let packed = command.get_packed_command();
        let sent = async {
            self.stream.write_all(&packed).await?;
            self.stream.flush().await
        };
        match timeout(silence_max, sent).await {
            Ok(Ok(())) => self.line(silence_max).await,
            Ok(Err(source)) => Err(self.lost(source)),
            Err(_) => Err(self.late(silence_max)),
        }
    }

    /// The next line that is not empty. An empty one is how a server that works on the answer says
    /// that it lives, so it only begins the wait for `silence_max` again.
    pub(super) async fn line(&mut self, silence_max: Duration) -> Result<String, RedisError> {
        loop {
            let mut line = Vec::new();
            let mut limited = (&mut self.stream).take(LINE_BYTES_MAX);
            match timeout(silence_max, limited.read_until(b'\n', &mut line)).await {
                Ok(Ok(0)) => return Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(Ok(_)) => {}
                Ok(Err(source)) => return Err(self.lost(source)),
                Err(_) => return Err(self.late(silence_max)),
            }
            if line.last() != Some(&b'\n') {
                return Err(self.senseless("a line that does not end".to_owned()));
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if !text.is_empty() {
                return Ok(text);
            }
        }
    }

    /// The bytes that come next, at most as many as fit into `buffer`; never none.
    pub(super) async fn bytes(
        &mut self,
        buffer: &mut Vec<u8>,
        silence_max: Duration,
    ) -> Result<(), RedisError> {
        buffer.clear();
        match timeout(silence_max, self.stream.read_buf(buffer)).await {
            Ok(Ok(0)) => Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(source)) => Err(self.lost(source)),
            Err(_) => Err(self.late(silence_max)),
        }
    }

    /// A place for [`Wire::bytes`] to read into.
    pub(super) fn buffer() -> Vec<u8> {
        Vec::with_capacity(CHUNK_BYTES)
    }

    /// An answer that a server of this protocol cannot give.
    pub(super) fn senseless(&self, what: String) -> RedisError {
        RedisError::Senseless { address: self.address.clone(), command: "PSYNC", what }
    }

    /// A refusal of `command`, as it stands behind the dash.
    pub(super) fn refused(&self, command: &'static str, answer: &str) -> RedisError {
        let (code, text) = answer.split_once(' ').unwrap_or((answer, ""));
        RedisError::Refused {
            address: self.address.clone(),
            command,
            code: code.to_owned(),
            text: text.to_owned(),
        }
    }

    fn lost(&self, source: io::Error) -> RedisError {
        RedisError::Lost { address: self.address.clone(), source: source.into() }
    }

    fn late(&self, after: Duration) -> RedisError {
        RedisError::Deadline { address: self.address.clone(), after }
    }
}

async fn connect(host: &Host, tls: &Tls) -> io::Result<Box<dyn Stream>> {
    let (name, port) = match host {
        Host::Unix(path, _) => return Ok(Box::new(UnixStream::connect(path).await?)),
        Host::Tcp(name, port) => (name.as_str(), *port),
    };
    let stream = TcpStream::connect((name, port)).await?;
    stream.set_nodelay(true)?;
    let Tls::Verify { ca_file } = tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(trust(ca_file.as_deref())?));
    Ok(Box::new(connector.connect(name, stream).await?))
}

fn trust(ca_file: Option<&Path>) -> io::Result<ClientConfig> {
    let certificates = match ca_file {
        Some(path) => CertificateDer::pem_slice_iter(&std::fs::read(path)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(io::Error::other)?,
        // Certificates of the system that cannot be read are only fewer to trust.
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
