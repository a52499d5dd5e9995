//! An alert as a mail, by SMTP.
//!
//! What the server says beside its code is in no error: some repeat there what was sent.

use std::fs;
use std::time::UNIX_EPOCH;

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::chain;
use super::delivery::Verdict;
use super::http::NOBODY_TRUSTED;
use super::message::{Alert, date, digest, shortened};
use crate::adapters::trust;
use crate::config::settings::{Email as Settings, Encryption};

/// A subject is a line on a telephone.
const SUBJECT_CHARS_MAX: usize = 150;

/// Codes by which a server refuses us rather than the mail: who logs in, and how. A person can mend
/// that, and then the mail is wanted.
const REFUSED_LOGIN: [u16; 5] = [503, 530, 534, 535, 538];

pub(super) struct Email {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
    trusts: bool,
}

impl Email {
    /// `Err` says what is wrong with the settings.
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let mailbox = |text: &String| {
            text.parse::<Mailbox>().map_err(|_error| format!("{text} is not an address for mail"))
        };
        let (tls, trusts) = match settings.encryption {
            Encryption::Off => (Tls::None, true),
            Encryption::StartTls => {
                let (parameters, trusts) = parameters(settings)?;
                (Tls::Required(parameters), trusts)
            }
            Encryption::Tls => {
                let (parameters, trusts) = parameters(settings)?;
                (Tls::Wrapper(parameters), trusts)
            }
        };
        let mut transport =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(settings.host.as_str())
                .port(settings.port)
                .tls(tls)
                // Each attempt has a deadline as a whole.
                .timeout(None);
        if let Ok(Ok(name)) = nix::unistd::gethostname().map(std::ffi::OsString::into_string) {
            transport = transport.hello_name(ClientId::Domain(name));
        }
        if let Some((user, password)) = &settings.login {
            let password = password.expose().to_owned();
            transport = transport.credentials(Credentials::new(user.clone(), password));
        }
        Ok(Self {
            transport: transport.build(),
            from: mailbox(&settings.from)?,
            to: settings.to.iter().map(mailbox).collect::<Result<_, _>>()?,
            trusts,
        })
    }

    pub(super) fn hopeless(&self) -> Option<String> {
        (!self.trusts).then(|| NOBODY_TRUSTED.to_owned())
    }

    pub(super) async fn send(&self, alert: &Alert) -> Verdict {
        let mail = match self.mail(alert) {
            Ok(mail) => mail,
            Err(error) => return Verdict::Never { fault: format!("it is no mail: {error}") },
        };
        match self.transport.send(mail).await {
            Ok(_accepted) => Verdict::Delivered,
            Err(error) => judge(&error),
        }
    }

    fn mail(&self, alert: &Alert) -> Result<Message, lettre::error::Error> {
        let word = if alert.resolves.is_some() { "resolved" } else { alert.severity.as_str() };
        let summary = shortened(&alert.summary, SUBJECT_CHARS_MAX);
        // The same for all mails about one thing, so that they are one conversation.
        let thread = format!("<{}@understudy>", digest(&alert.dedup_key));
        let mut mail = Message::builder()
            .from(self.from.clone())
            .subject(one_line(&format!("[{word}] {summary}")))
            .date(alert.at.max(UNIX_EPOCH))
            .message_id(Some(format!("<{}@understudy>", alert.id)))
            .in_reply_to(thread.clone())
            .references(thread)
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            mail = mail.to(to.clone());
        }
        let mut mail = mail.body(text(alert))?;
        // Keeps people who are away from answering.
        let name = HeaderName::new_from_ascii_str("Auto-Submitted");
        mail.headers_mut().insert_raw(HeaderValue::new(name, "auto-generated".to_owned()));
        Ok(mail)
    }
}

/// How the connection is encrypted, and whether anybody is trusted at all.
fn parameters(settings: &Settings) -> Result<(TlsParameters, bool), String> {
    let mut builder =
        TlsParameters::builder(settings.host.clone()).certificate_store(CertificateStore::None);
    let trusted = match &settings.ca_file {
        Some(path) => {
            let shown = path.display();
            let pem = fs::read(path).map_err(|error| format!("{shown}: {error}"))?;
            let found = Certificate::from_pem(&pem)
                .map_err(|error| format!("{shown}: {}", chain(&error)))?;
            vec![found]
        }
        None => trust::in_der().filter_map(|der| Certificate::from_der(der).ok()).collect(),
    };
    let trusts = !trusted.is_empty();
    for certificate in trusted {
        builder = builder.add_root_certificate(certificate);
    }
    Ok((builder.build_rustls().map_err(|error| chain(&error))?, trusts))
}

fn judge(error: &Error) -> Verdict {
    match error.status() {
        Some(code) => {
            let code = u16::from(code);
            let fault = format!("the mail server answered {code}");
            if error.is_permanent() && !REFUSED_LOGIN.contains(&code) {
                Verdict::Never { fault }
            } else {
                Verdict::Later { fault, after: None }
            }
        }
        None => Verdict::Later { fault: chain(error), after: None },
    }
}

fn text(alert: &Alert) -> String {
    let mut text = format!("{}\n\n{}\n\n", alert.summary, alert.detail);
    let mut row = |label: &str, value: &str| text += &format!("{label:<10}{}\n", one_line(value));
    row("event", &alert.event);
    row("severity", alert.severity.as_str());
    row("status", alert.status());
    if let Some(group) = &alert.group {
        row("group", group);
    }
    if let Some(epoch) = alert.epoch {
        row("epoch", &epoch.to_string());
    }
    row("node", &alert.node);
    row("at", &date(alert.at));
    row("id", &alert.id.to_string());
    for (name, value) in &alert.fields {
        row(name, value);
    }
    text
}

fn one_line(text: &str) -> String {
    text.replace(|letter: char| letter.is_control(), " ")
}

impl std::fmt::Debug for Email {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Email").finish_non_exhaustive()
    }
}
