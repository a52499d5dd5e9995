//! A private certificate authority, and a server's certificate signed by it.

#![allow(clippy::expect_used, reason = "a test that cannot have its certificates ends here")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Files of an authority and of a server that is called `localhost` and `127.0.0.1`.
pub struct Certificates {
    /// Certificate of the authority.
    pub ca: PathBuf,
    /// Certificate of the server.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Certificates {
    /// Makes all of them in `dir`.
    pub fn make(dir: &Path) -> Self {
        let file = |name: &str| dir.join(name);
        let extensions = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";
        std::fs::write(file("server.ext"), extensions).expect("write extensions");
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        for line in [
            format!(
                "req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca \
                 -addext basicConstraints=critical,CA:TRUE"
            ),
            format!("req -new {key} -keyout server.key -out server.csr -subj /CN=localhost"),
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem \
             -days 2 -extfile server.ext"
                .to_owned(),
        ] {
            let arguments = line.split_whitespace();
            let run = Command::new("openssl").args(arguments).current_dir(dir).output();
            let run = run.expect("openssl is installed");
            assert!(
                run.status.success(),
                "openssl {line}: {}",
                String::from_utf8_lossy(&run.stderr)
            );
        }
        Self { ca: file("ca.pem"), certificate: file("server.pem"), key: file("server.key") }
    }
}
