//! What stands beside the hosts in the network of a rack: whoever takes alerts, and the switch of
//! the hosts' power, which the fence command asks.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use super::rack::{Rack, SWITCH};

/// Where alerts are posted to.
pub const PAGER_PORT: u16 = 8080;

/// Where a host's power can be taken away.
pub const POWER_PORT: u16 = 8081;

/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(5);

/// Between two looks whether a server shall end.
const PACE: Duration = Duration::from_millis(20);

/// Takes alerts, while it is up.
pub struct Pager {
    rack: Arc<Rack>,
    alerts: Arc<Mutex<Vec<Value>>>,
    server: Option<Server>,
}

impl Pager {
    /// One that is up.
    pub fn start(rack: &Arc<Rack>) -> Self {
        let mut pager = Self { rack: rack.clone(), alerts: Arc::default(), server: None };
        pager.come_back();
        pager
    }

    /// Nobody listens there any more.
    pub fn go_away(&mut self) {
        self.server = None;
    }

    /// Listens again.
    pub fn come_back(&mut self) {
        let alerts = self.alerts.clone();
        self.server = Some(Server::start(&self.rack, PAGER_PORT, move |_, body| {
            let alert = serde_json::from_slice(body);
            alerts.lock().unwrap().push(alert.unwrap_or_else(|error| error.to_string().into()));
        }));
    }

    /// The alerts that came, in that order.
    pub fn alerts(&self) -> Vec<Value> {
        self.alerts.lock().unwrap().clone()
    }

    /// Their events.
    pub fn events(&self) -> Vec<String> {
        let text = |alert: Value| alert["event"].as_str().unwrap_or_default().to_owned();
        self.alerts().into_iter().map(text).collect()
    }
}

/// Takes the power from a host on `POST /HOST`.
pub struct Power {
    asked: Arc<Mutex<Vec<String>>>,
    _server: Server,
}

impl Power {
    /// Begins to listen.
    pub fn start(rack: &Arc<Rack>) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (noted, hosts) = (asked.clone(), rack.clone());
        let server = Server::start(rack, POWER_PORT, move |path, _| {
            let host = path.trim_start_matches('/').to_owned();
            hosts.kill(&host);
            noted.lock().unwrap().push(host);
        });
        Self { asked, _server: server }
    }

    /// The hosts that somebody wanted off.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// A small HTTP server that answers 204 once the work is done.
struct Server {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(rack: &Arc<Rack>, port: u16, work: impl Fn(&str, &[u8]) + Send + 'static) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let (ends, rack) = (end.clone(), rack.clone());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            rack.join_network();
            let listener = TcpListener::bind((SWITCH, port)).unwrap();
            listener.set_nonblocking(true).unwrap();
            ready.send(()).unwrap();
            while !ends.load(Ordering::Relaxed) {
                match listener.accept() {
                    // A client that goes away in the middle comes again.
                    Ok((stream, _)) => drop(serve(&stream, &work)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PACE),
                    Err(error) => panic!("port {port}: {error}"),
                }
            }
        });
        is_ready.recv().unwrap();
        Self { end, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || thread::panicking(), "a server of the rack failed");
        }
    }
}

/// Answers one request; the connection is not kept.
fn serve(stream: &TcpStream, work: &impl Fn(&str, &[u8])) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(REQUEST_MAX))?;
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let path = first.split(' ').nth(1).unwrap_or_default();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    work(path, &body);
    reader.into_inner().write_all(b"HTTP/1.1 204 Done\r\nConnection: close\r\n\r\n")
}
