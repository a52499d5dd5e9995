//! Who the listener proves to be.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::settings::Identity;
use crate::error::chain;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// A file cannot be read, or is not PEM.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no certificate in the file.
    #[error("there is no certificate in {}", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// Certificate and key do not fit, or are of a kind that is not known.
    #[error("the certificate and the key cannot be used together")]
    Unfit(#[source] rustls::Error),
}

/// What connections are encrypted with, or why they cannot be; `None` if they need not be.
pub type Encryption = Result<Option<Arc<ServerConfig>>, String>;

/// The certificate in use.
#[derive(Default)]
pub struct Kept(Option<Arc<ServerConfig>>);

impl Kept {
    /// Reads certificate and key. If they cannot be used, the last ones that could stay in use, and
    /// the fault is beside them.
    pub fn load(&mut self, identity: Option<&Identity>) -> (Encryption, Option<String>) {
        let Some(identity) = identity else {
            self.0 = None;
            return (Ok(None), None);
        };
        match load(identity) {
            Ok(config) => {
                self.0 = Some(config.clone());
                (Ok(Some(config)), None)
            }
            Err(fault) => {
                let fault = chain(&fault);
                let kept = self.0.clone();
                (kept.map_or_else(|| Err(fault.clone()), |kept| Ok(Some(kept))), Some(fault))
            }
        }
    }
}

/// Reads certificate and key.
///
/// # Errors
/// If they cannot be used.
pub fn load(identity: &Identity) -> Result<Arc<ServerConfig>, TlsFault> {
    let path = &identity.certificate_file;
    let pem = read(path)?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| not_pem(path, error))?;
    if certificates.is_empty() {
        return Err(TlsFault::Empty { path: path.clone() });
    }
    let path = &identity.key_file;
    let key = PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| not_pem(path, error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key))
        .map_err(TlsFault::Unfit)?;
    Ok(Arc::new(config))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsFault> {
    std::fs::read(path).map_err(|source| TlsFault::Read { path: path.to_owned(), source })
}

fn not_pem(path: &Path, error: rustls::pki_types::pem::Error) -> TlsFault {
    let source = io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    TlsFault::Read { path: path.to_owned(), source }
}
