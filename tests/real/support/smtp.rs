//! A mail server that says what the test tells it to, in the clear, after STARTTLS or within TLS.

#![allow(clippy::expect_used, reason = "a test that cannot have its server ends here")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::certificates::Certificates;
use super::http::server_config;

/// How the server behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Takes every mail.
    Well,
    /// Answers the command that begins so with this line.
    Refusing(&'static str, &'static str),
    /// Never says a word.
    Silent,
    /// Greets letter by letter, so that it takes for ever.
    Drip,
    /// Greets with something that is not SMTP.
    Garbage,
}

/// A mail that came.
#[derive(Clone, Debug, Default)]
pub struct Mail {
    /// What the client called itself.
    pub hello: String,
    /// Whether it came over an encrypted connection.
    pub encrypted: bool,
    /// What was said to log in.
    pub login: Option<String>,
    /// Envelope.
    pub from: String,
    /// Envelope.
    pub to: Vec<String>,
    /// Header and body as they came.
    pub text: String,
}

impl Mail {
    /// A line of the header, unfolded.
    pub fn header(&self, name: &str) -> Option<String> {
        let (header, _) = self.text.split_once("\r\n\r\n")?;
        let header = header.replace("\r\n ", " ");
        let mut lines = header.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, text)| text.to_owned())
    }

    /// The body, with its encoding undone.
    pub fn body(&self) -> String {
        let (_, body) = self.text.split_once("\r\n\r\n").expect("a header and a body");
        match self.header("Content-Transfer-Encoding").as_deref() {
            Some("7bit" | "8bit") | None => body.to_owned(),
            Some("quoted-printable") => unquoted(body),
            Some(other) => panic!("encoding {other}"),
        }
    }
}

fn unquoted(text: &str) -> String {
    let text = text.replace("=\r\n", "");
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'=' {
            let digits = [rest.next().expect("a digit"), rest.next().expect("a digit")];
            let digits = std::str::from_utf8(&digits).expect("two digits");
            bytes.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// A server on a port of its own. Its threads end with the test's process.
pub struct Smtp {
    /// Where it listens.
    pub port: u16,
    mails: Receiver<Mail>,
    manner: Arc<Mutex<Manner>>,
}

/// How connections are encrypted.
#[derive(Clone)]
enum Security {
    None,
    StartTls(Arc<ServerConfig>),
    Tls(Arc<ServerConfig>),
}

impl Smtp {
    /// Starts one in the clear.
    pub fn start(manner: Manner) -> Self {
        Self::listen(manner, Security::None)
    }

    /// Starts one that offers STARTTLS, and takes nothing without.
    pub fn start_starttls(certificates: &Certificates, manner: Manner) -> Self {
        Self::listen(manner, Security::StartTls(server_config(certificates)))
    }

    /// Starts one that speaks TLS only.
    pub fn start_tls(certificates: &Certificates, manner: Manner) -> Self {
        Self::listen(manner, Security::Tls(server_config(certificates)))
    }

    fn listen(manner: Manner, security: Security) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (sender, mails) = channel();
        let manner = Arc::new(Mutex::new(manner));
        let script = Arc::clone(&manner);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (sender, security) = (sender.clone(), security.clone());
                let manner = script.lock().expect("no thread panicked").clone();
                // A client that goes away in the middle is its own business.
                thread::spawn(move || serve(stream, &security, &manner, &sender).ok());
            }
        });
        Self { port, mails, manner }
    }

    /// Waits for the next mail.
    pub fn next(&self) -> Mail {
        self.mails.recv_timeout(Duration::from_secs(30)).expect("a mail within 30 s")
    }

    /// Behaves like this from the next connection on.
    pub fn behave(&self, manner: Manner) {
        *self.manner.lock().expect("no thread panicked") = manner;
    }
}

fn serve(
    mut stream: TcpStream,
    security: &Security,
    manner: &Manner,
    mails: &Sender<Mail>,
) -> std::io::Result<()> {
    match manner {
        Manner::Silent => {
            // Until the client gives up.
            stream.read_to_end(&mut Vec::new())?;
            return Ok(());
        }
        Manner::Drip => {
            // Until the client gives up.
            while stream.write_all(b"2").is_ok() {
                thread::sleep(Duration::from_millis(50));
            }
            return Ok(());
        }
        Manner::Garbage => return stream.write_all(b"\x01\x02 this is no SMTP\r\n"),
        Manner::Well | Manner::Refusing(..) => {}
    }
    let over_tls = |stream, config: &Arc<ServerConfig>| {
        let session = ServerConnection::new(config.clone()).expect("a TLS session");
        StreamOwned::new(session, stream)
    };
    match security {
        Security::None => {
            greet(&mut stream)?;
            talk(stream, false, false, manner, mails).map(drop)
        }
        Security::Tls(config) => {
            let mut stream = over_tls(stream, config);
            greet(&mut stream)?;
            talk(stream, true, false, manner, mails).map(drop)
        }
        Security::StartTls(config) => {
            greet(&mut stream)?;
            match talk(stream, false, true, manner, mails)? {
                Some(stream) => {
                    talk(over_tls(stream, config), true, false, manner, mails).map(drop)
                }
                None => Ok(()),
            }
        }
    }
}

fn greet(stream: &mut impl Write) -> std::io::Result<()> {
    stream.write_all(b"220 mail.test ESMTP\r\n")?;
    stream.flush()
}

/// Talks until the client quits, or wants to begin anew with encryption.
fn talk<S: Read + Write>(
    stream: S,
    encrypted: bool,
    offers_tls: bool,
    manner: &Manner,
    mails: &Sender<Mail>,
) -> std::io::Result<Option<S>> {
    let mut stream = BufReader::new(stream);
    let mut mail = Mail { encrypted, ..Mail::default() };
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end().to_owned();
        let command = line.to_uppercase();
        let answer = match manner {
            Manner::Refusing(begin, answer) if command.starts_with(begin) => (*answer).to_owned(),
            _ if command.starts_with("EHLO") => {
                line[5..].clone_into(&mut mail.hello);
                let offer = if offers_tls { "250-STARTTLS\r\n" } else { "" };
                format!("250-mail.test\r\n{offer}250-AUTH PLAIN\r\n250 8BITMIME")
            }
            _ if command == "STARTTLS" && offers_tls => {
                stream.get_mut().write_all(b"220 go on\r\n")?;
                return Ok(Some(stream.into_inner()));
            }
            _ if offers_tls && command != "QUIT" => "530 encrypt first".to_owned(),
            _ if command.starts_with("AUTH PLAIN ") => {
                mail.login = Some(line[11..].to_owned());
                "235 welcome".to_owned()
            }
            _ if command.starts_with("MAIL FROM:") => {
                mail.from = path(&line);
                "250 ok".to_owned()
            }
            _ if command.starts_with("RCPT TO:") => {
                mail.to.push(path(&line));
                "250 ok".to_owned()
            }
            _ if command == "DATA" => {
                stream.get_mut().write_all(b"354 go on\r\n")?;
                stream.get_mut().flush()?;
                mail.text = data(&mut stream)?;
                match manner {
                    Manner::Refusing(".", answer) => (*answer).to_owned(),
                    _ => {
                        // The test may be over and no longer listening.
                        mails.send(mail.clone()).ok();
                        "250 taken".to_owned()
                    }
                }
            }
            _ if command == "QUIT" => "221 bye".to_owned(),
            _ => "250 ok".to_owned(),
        };
        stream.get_mut().write_all(format!("{answer}\r\n").as_bytes())?;
        stream.get_mut().flush()?;
    }
}

fn path(line: &str) -> String {
    let from = line.find('<').map_or(0, |at| at + 1);
    line[from..].split('>').next().unwrap_or_default().to_owned()
}

fn data(stream: &mut impl BufRead) -> std::io::Result<String> {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 || line == ".\r\n" {
            return Ok(text);
        }
        text += line.strip_prefix('.').unwrap_or(&line);
    }
}
