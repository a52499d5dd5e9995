//! Whom an encrypted connection is made to: certificate authorities of a file or of the system. A
//! tool for the adapters that speak HTTP or SMTP; it knows none of them.

use std::path::Path;

use reqwest::Certificate;

use crate::error::chain;

/// Reads certificate authorities in PEM.
///
/// # Errors
/// If the file cannot be read or is no PEM, in words.
pub fn read(path: &Path) -> Result<Vec<Certificate>, String> {
    let shown = path.display();
    let pem = std::fs::read(path).map_err(|error| format!("{shown}: {error}"))?;
    Certificate::from_pem_bundle(&pem).map_err(|error| format!("{shown}: {}", chain(&error)))
}

/// What the system trusts, in DER. Certificates that cannot be read are only fewer to trust.
pub fn in_der() -> impl Iterator<Item = Vec<u8>> {
    let found = rustls_native_certs::load_native_certs().certs;
    let mut usable = rustls::RootCertStore::empty();
    let found = found.into_iter().filter(move |found| usable.add(found.clone()).is_ok());
    found.map(|certificate| certificate.as_ref().to_vec())
}

/// What the system trusts.
#[must_use]
pub fn of_the_system() -> Vec<Certificate> {
    in_der().filter_map(|der| Certificate::from_der(&der).ok()).collect()
}

/// Makes *ring* the process's default for TLS, which the clients ask for. Harmless if it is already.
pub fn install_crypto() {
    // It only fails if there is a default already, which is then as good.
    let _present = rustls::crypto::ring::default_provider().install_default();
}
