//! An HTTP server that answers what the test tells it to, well or badly.

#![allow(clippy::expect_used, reason = "a test that cannot have its server ends here")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::certificates::Certificates;

/// Between two bytes of an answer that drips.
const DRIP: Duration = Duration::from_millis(50);

/// How to answer one request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// With this status.
    Status(u16),
    /// With this status and a line of the header.
    With(u16, String),
    /// Not at all; the connection stays open.
    Silence,
    /// With something that is not HTTP.
    Garbage,
    /// Byte by byte, so that it takes for ever.
    Drip,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Request {
    /// First line.
    pub line: String,
    /// Lines of the header, names in lower case.
    pub header: BTreeMap<String, String>,
    /// Body.
    pub body: Vec<u8>,
}

impl Request {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a body in JSON")
    }
}

/// A server on a port of its own. Its threads end with the test's process.
pub struct Http {
    /// Where it listens.
    pub port: u16,
    requests: Receiver<Request>,
    answers: Arc<Mutex<Vec<Answer>>>,
}

impl Http {
    /// Starts one that gives these answers in turn, and the last one for ever.
    pub fn start(answers: &[Answer]) -> Self {
        Self::listen(TcpListener::bind(("127.0.0.1", 0)).expect("a port"), answers, None)
    }

    /// The same on a port that was chosen before.
    pub fn start_on(port: u16, answers: &[Answer]) -> Self {
        Self::listen(TcpListener::bind(("127.0.0.1", port)).expect("the port"), answers, None)
    }

    /// The same with encryption.
    pub fn start_tls(certificates: &Certificates, answers: &[Answer]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        Self::listen(listener, answers, Some(server_config(certificates)))
    }

    fn listen(listener: TcpListener, answers: &[Answer], tls: Option<Arc<ServerConfig>>) -> Self {
        let port = listener.local_addr().expect("its address").port();
        let (sender, requests) = channel();
        let mut answers = answers.to_vec();
        answers.reverse();
        let answers = Arc::new(Mutex::new(answers));
        let script = Arc::clone(&answers);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (sender, script, tls) = (sender.clone(), Arc::clone(&script), tls.clone());
                thread::spawn(move || match tls {
                    None => serve(stream, &sender, &script),
                    Some(config) => {
                        let session = ServerConnection::new(config).expect("a TLS session");
                        serve(StreamOwned::new(session, stream), &sender, &script);
                    }
                });
            }
        });
        Self { port, requests, answers }
    }

    /// Waits for the next request.
    pub fn next(&self) -> Request {
        self.requests.recv_timeout(Duration::from_secs(30)).expect("a request within 30 s")
    }

    /// A request that came already.
    pub fn try_next(&self) -> Option<Request> {
        self.requests.try_recv().ok()
    }

    /// Gives this answer from now on.
    pub fn answer(&self, answer: Answer) {
        *self.answers.lock().expect("no thread panicked") = vec![answer];
    }
}

/// What a server needs to encrypt.
pub fn server_config(certificates: &Certificates) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(&certificates.certificate).expect("PEM");
    let key = PrivateKeyDer::from_pem_file(&certificates.key).expect("PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate with its key");
    Arc::new(config)
}

fn serve(
    stream: impl Read + Write,
    requests: &std::sync::mpsc::Sender<Request>,
    script: &Mutex<Vec<Answer>>,
) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream) {
        let answer = {
            let mut script = script.lock().expect("no thread panicked");
            if script.len() > 1 { script.pop() } else { script.last().cloned() }
        };
        // The test may be over and no longer listening.
        requests.send(request).ok();
        let text = match answer.expect("at least one answer") {
            Answer::Status(status) => format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n"),
            Answer::With(status, line) => {
                format!("HTTP/1.1 {status} x\r\n{line}\r\nContent-Length: 0\r\n\r\n")
            }
            Answer::Silence => {
                // Until the client gives up and closes the connection.
                stream.read_to_end(&mut Vec::new()).ok();
                return;
            }
            Answer::Drip => {
                // Until the client gives up.
                while stream.get_mut().write_all(b"x").is_ok() && stream.get_mut().flush().is_ok() {
                    thread::sleep(DRIP);
                }
                return;
            }
            Answer::Garbage => "\u{1}\u{2} this is no HTTP \r\n\r\n".to_owned(),
        };
        if stream.get_mut().write_all(text.as_bytes()).is_err() {
            return;
        }
        stream.get_mut().flush().ok();
        if text.starts_with('\u{1}') {
            return;
        }
    }
}

fn read(stream: &mut impl BufRead) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let first = lines.first()?.clone();
    let header = lines
        .iter()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect::<BTreeMap<_, _>>();
    let length = header.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Request { line: first, header, body })
}
