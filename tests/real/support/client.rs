//! A client of the daemon's HTTP listener, plain enough to be rude.

#![allow(clippy::unwrap_used, reason = "a test whose surroundings fail has failed")]

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub code: u16,
    /// Headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Body.
    pub body: String,
}

impl Answer {
    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The value of a sample of the metrics, named with its labels.
    pub fn sample(&self, name: &str) -> Option<f64> {
        self.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }
}

/// Gets a path.
pub fn get(port: u16, path: &str) -> Answer {
    try_get(port, path, &[]).unwrap()
}

/// Gets a path with further headers. A `Host` among them replaces the usual one.
pub fn try_get(port: u16, path: &str, headers: &[(&str, &str)]) -> io::Result<Answer> {
    ask(connect(port)?, "GET", path, headers)
}

/// Connects.
pub fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Asks over a connection that is open, and reads until it is closed.
pub fn ask<S: io::Read + Write>(
    mut stream: S,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> io::Result<Answer> {
    write_head(&mut stream, method, path, headers)?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw)?;
    parse(&raw)
}

/// Follows events. Each is its name and its data.
pub fn follow(port: u16, path: &str) -> impl Iterator<Item = (String, String)> {
    let mut stream = connect(port).unwrap();
    write_head(&mut stream, "GET", path, &[]).unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    std::iter::from_fn(move || {
        let mut event = (String::new(), String::new());
        // Chunk sizes and headers stand between events; neither begins like a field.
        for line in lines.by_ref() {
            if let Some(name) = line.strip_prefix("event: ") {
                event.0 = name.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                event.1 += data;
                event.1.push('\n');
            } else if line.is_empty() && !event.1.is_empty() {
                return Some(event);
            }
        }
        None
    })
}

fn write_head(
    stream: &mut impl Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> io::Result<()> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if headers.iter().all(|(name, _)| *name != "Host") {
        head += "Host: localhost\r\n";
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())
}

fn parse(raw: &[u8]) -> io::Result<Answer> {
    let text = String::from_utf8_lossy(raw).into_owned();
    let no = || io::Error::new(io::ErrorKind::InvalidData, format!("no answer: {text:?}"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(no)?;
    let mut lines = head.lines();
    let code = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines.filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_ascii_lowercase(), value.to_owned()))
    });
    let headers = headers.collect();
    Ok(Answer { code: code.ok_or_else(no)?, headers, body: body.to_owned() })
}
