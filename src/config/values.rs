//! Texts into durations, hosts and names, and the words for what is wrong with them.
//!
//! No error repeats the text: it may be a password that was written into the wrong key. The fault
//! says where it is.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use humantime::format_duration;

use super::section::Span;
use super::settings::{Host, Listen, Table};

/// Names of groups and channels. They are parts of file names, of units and of environment files.
const NAME_BYTES_MAX: usize = 63;

/// Names of nodes. As long as a host's full name may be.
const NODE_BYTES_MAX: usize = 253;

/// Identifiers in Postgres. It cuts longer ones without a word, and then finds another table.
const IDENTIFIER_BYTES_MAX: usize = 63;

/// Texts that are compared with those in a table. Generous for a bot's name or a status.
const LABEL_BYTES_MAX: usize = 255;

/// Names of units, by systemd's own limit.
const UNIT_BYTES_MAX: usize = 255;

/// Kinds of unit that can be started. A scope or a slice cannot.
const UNIT_SUFFIXES: [&str; 8] =
    ["service", "socket", "target", "timer", "path", "mount", "automount", "swap"];

/// A duration within the bounds of `span`.
pub(super) fn duration(text: &str, span: Span) -> Result<Duration, String> {
    let Span { least, most, .. } = span;
    let duration = humantime::parse_duration(text)
        .map_err(|_| "not a duration; write it like \"60s\", \"1m 30s\" or \"500ms\"".to_owned())?;
    let (what, bound) = match duration {
        duration if duration < least => ("short", least),
        duration if duration > most => ("long", most),
        _ => return Ok(duration),
    };
    Err(format!(
        "too {what}; it must be \"{}\" or {}",
        format_duration(bound),
        match what {
            "short" => "more",
            _ => "less",
        }
    ))
}

/// One of a few words.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&'static str, T)]) -> Result<T, String> {
    let chosen = choices.iter().find(|(word, _)| *word == text);
    chosen.map(|(_, value)| *value).ok_or_else(|| one_of(choices))
}

/// Says what the words are.
pub(super) fn one_of<T>(choices: &[(&'static str, T)]) -> String {
    let words: Vec<_> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    format!("must be {}", words.join(" or "))
}

/// Name of a group or a channel.
pub(crate) fn name(text: &str) -> Result<(), String> {
    let valid = !text.is_empty()
        && text.len() <= NAME_BYTES_MAX
        && text.starts_with(|char: char| char.is_ascii_lowercase() || char.is_ascii_digit())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
    check(valid, || {
        format!(
            "not a name; use a to z, 0 to 9, \"-\" and \"_\", at most {NAME_BYTES_MAX} of them, \
             beginning with a letter or a digit"
        )
    })
}

/// Name of a node.
pub(super) fn node(text: &str) -> Result<String, String> {
    let graphic = text.chars().all(|char| !char.is_whitespace() && !char.is_control());
    check(!text.is_empty() && graphic && text.len() <= NODE_BYTES_MAX, || {
        format!("not a node's name; write 1 to {NODE_BYTES_MAX} characters without spaces")
    })?;
    Ok(text.to_owned())
}

/// A text that is compared with one in a table.
pub(super) fn label(text: &str) -> Result<String, String> {
    let valid = (1..=LABEL_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control);
    check(valid, || format!("must be 1 to {LABEL_BYTES_MAX} bytes of text, without line breaks"))?;
    Ok(text.to_owned())
}

/// Name of something in Postgres, as it is there: quoting and case are not folded.
pub(super) fn identifier(text: &str) -> Result<String, String> {
    let forbidden = |char: char| char.is_control() || matches!(char, '"' | '.');
    let valid = (1..=IDENTIFIER_BYTES_MAX).contains(&text.len())
        && text.trim() == text
        && !text.contains(forbidden);
    check(valid, || {
        format!(
            "not a name in Postgres; write it without quotes or dots, as \\d shows it, \
             1 to {IDENTIFIER_BYTES_MAX} bytes"
        )
    })?;
    Ok(text.to_owned())
}

/// Schema for our own tables: one that `understudy setup` may make.
pub(super) fn own_schema(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    let letter = text.starts_with(|char: char| char.is_ascii_lowercase());
    check(plain && letter && text.len() <= IDENTIFIER_BYTES_MAX, || {
        "not a name for a schema; use a to z, 0 to 9 and \"_\", beginning with a letter".to_owned()
    })?;
    let taken = text == "public" || text == "information_schema" || text.starts_with("pg_");
    check(!taken, || "understudy needs a schema of its own, such as \"understudy\"".to_owned())?;
    Ok(text.to_owned())
}

/// A table as `schema.table`, or `table` in `public`.
pub(super) fn table(text: &str) -> Result<Table, String> {
    let (schema, name) = text.split_once('.').unwrap_or(("public", text));
    match (identifier(schema), identifier(name)) {
        (Ok(schema), Ok(name)) => Ok(Table { schema, name }),
        _ => Err("not a table; write \"schema.table\", or \"table\" if the schema is public, \
                  without quotes"
            .to_owned()),
    }
}

/// Name of a systemd unit that can be started.
pub(super) fn unit(text: &str) -> Result<String, String> {
    let Some((stem, suffix)) = text.rsplit_once('.').filter(|(_, s)| UNIT_SUFFIXES.contains(s))
    else {
        return Err(format!(
            "not the full name of a unit that can be started; end it in \".service\" \
             (or {})",
            UNIT_SUFFIXES[1..].join(", ")
        ));
    };
    let legal = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    let valid = text.len() <= UNIT_BYTES_MAX
        && !stem.is_empty()
        && !stem.starts_with('@')
        && stem.bytes().all(legal);
    check(valid, || {
        format!(
            "not the name of a unit; systemd allows letters, digits and :-_.\\@, at most \
             {UNIT_BYTES_MAX} of them (systemd-escape helps)"
        )
    })?;
    check(!stem.ends_with('@'), || {
        format!("a template cannot be started; name its instance, like \"name@1.{suffix}\"")
    })?;
    Ok(text.to_owned())
}

/// An absolute path.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, String> {
    let valid = text.starts_with('/') && !text.contains('\0');
    check(valid, || "must be an absolute path, beginning with \"/\"".to_owned())?;
    Ok(PathBuf::from(text))
}

/// An argument of a command.
pub(super) fn argument(text: &str) -> Result<String, String> {
    check(!text.contains('\0'), || "an argument cannot hold a NUL character".to_owned())?;
    Ok(text.to_owned())
}

/// Where a Postgres listens: `host`, `host:port`, `/directory` or `/directory:port`.
pub(super) fn postgres_host(text: &str) -> Result<Host, String> {
    const PORT: u16 = 5432;
    if !text.starts_with('/') {
        return tcp(text, PORT, "\"/run/postgresql\"");
    }
    let (directory, port) = match text.rsplit_once(':') {
        Some((directory, port)) => (directory, port_number(port)?),
        None => (text, PORT),
    };
    Ok(Host::Unix(absolute_path(directory)?, port))
}

/// Where a Redis listens: `host`, `host:port`, `/socket` or `unix:/socket`.
pub(super) fn redis_host(text: &str) -> Result<Host, String> {
    const PORT: u16 = 6379;
    let path = text.strip_prefix("unix:").unwrap_or(text);
    if path.starts_with('/') {
        return Ok(Host::Unix(absolute_path(path)?, 0));
    }
    tcp(text, PORT, "\"/run/redis/redis.sock\"")
}

/// Where a Redis listens for other hosts: `host` or `host:port`.
pub(super) fn redis_host_elsewhere(text: &str) -> Result<Host, String> {
    let host = redis_host(text)?;
    check(matches!(host, Host::Tcp(..)), || {
        "the other nodes cannot reach a socket; write \"host:port\"".to_owned()
    })?;
    Ok(host)
}

/// Where to listen: `address:port`, or a socket as `unix:/path` or `/path`. A name is no address: it
/// would have to be looked up, and may mean another address tomorrow.
pub(super) fn listen(text: &str) -> Result<Listen, String> {
    let path = text.strip_prefix("unix:").unwrap_or(text);
    if path.starts_with('/') {
        return Ok(Listen::Unix(absolute_path(path)?));
    }
    let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    address.map(Listen::Tcp).ok_or_else(|| {
        "not an address to listen on; write \"127.0.0.1:12847\", \"[::1]:12847\", or a socket's path \
         like \"unix:/run/understudy/http.sock\""
            .to_owned()
    })
}

/// A host's name, in lower case and without a port.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    check(!text.is_empty() && text.len() <= NODE_BYTES_MAX && text.bytes().all(legal), || {
        "not a host's name; write it like \"standby-1.example.net\", without a port".to_owned()
    })?;
    Ok(text.to_ascii_lowercase())
}

/// Whether nothing on the way to `host` can listen in.
pub(super) fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(..) => true,
        Host::Tcp(name, _) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
    }
}

/// An address for HTTP. It is parsed in full by who sends to it; this finds what cannot be one.
pub(super) fn check_url(text: &str) -> Result<(), String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    let strange = |char: char| char.is_whitespace() || char.is_control();
    check(host.is_some_and(|host| !host.is_empty()) && !text.contains(strange), || {
        "not an address; it must look like \"https://hooks.example.com/x\"".to_owned()
    })
}

/// Name or address of a server that has its port in a key of its own.
pub(super) fn server_name(text: &str) -> Result<String, String> {
    let valid = (1..=NODE_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':'))
        && (!text.contains(':') || text.parse::<Ipv6Addr>().is_ok());
    check(valid, || "not the name or address of a server; write it without a port".to_owned())?;
    Ok(text.to_owned())
}

/// Someone who sends or gets mail: `ops@example.net` or `Operations <ops@example.net>`.
pub(super) fn mailbox(text: &str) -> Result<String, String> {
    check(text.parse::<lettre::message::Mailbox>().is_ok(), || {
        "not an address for mail; write \"name@example.net\" or \"Name <name@example.net>\""
            .to_owned()
    })?;
    Ok(text.to_owned())
}

/// The known word that `word` most likely was meant to be.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // Comparing takes the product of both lengths; what is so long is no slip of the finger.
    const WORD_BYTES_MAX: usize = 64;
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    // One slip in three letters, but two in any word: "timeot", "cool-down", "stopped_status".
    let near = |candidate: &str| {
        let slips = strsim::damerau_levenshtein(&word.to_lowercase(), candidate);
        Some(slips).filter(|&slips| slips <= (candidate.len() / 3).max(1))
    };
    let candidates = known.iter().filter_map(|candidate| Some((near(candidate)?, *candidate)));
    candidates.min().map(|(_, candidate)| candidate)
}

fn tcp(text: &str, default_port: u16, socket: &str) -> Result<Host, String> {
    let wrong = || {
        format!("not a host; write \"host:port\", \"[::1]:port\", or a socket's path like {socket}")
    };
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
        host.parse::<Ipv6Addr>().map_err(|_| wrong())?;
        (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(wrong)?) })
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        check(!host.is_empty() && host.bytes().all(legal), wrong)?;
        (host, port)
    };
    let port = port.map_or(Ok(default_port), |port| port_number(port).map_err(|_| wrong()))?;
    Ok(Host::Tcp(host.to_owned(), port))
}

fn port_number(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|&port| port != 0);
    port.ok_or_else(|| "not a port; after the last \":\" write a number from 1 to 65535".to_owned())
}

fn check(valid: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if valid { Ok(()) } else { Err(text()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp_host(name: &str, port: u16) -> Option<Host> {
        Some(Host::Tcp(name.to_owned(), port))
    }

    fn socket(path: &str, port: u16) -> Option<Host> {
        Some(Host::Unix(path.into(), port))
    }

    #[test]
    fn hosts_of_postgres_in_each_form() {
        for (text, host) in [
            ("db1:5433", tcp_host("db1", 5433)),
            ("db1.example.net", tcp_host("db1.example.net", 5432)),
            ("[::1]:6000", tcp_host("::1", 6000)),
            ("[::1]", tcp_host("::1", 5432)),
            ("/run/postgresql", socket("/run/postgresql", 5432)),
            ("/run/postgresql:5433", socket("/run/postgresql", 5433)),
            ("::1", None),
            ("[::1", None),
            ("[::1]5432", None),
            ("[db1]:5432", None),
            ("db1:", None),
            ("db1:0", None),
            ("db1:65536", None),
            ("/run/postgresql:x", None),
            ("postgres://me:secret@db1/x", None),
            ("me@db1", None),
            ("db 1", None),
            (":5432", None),
            ("", None),
        ] {
            assert_eq!(postgres_host(text).ok(), host, "{text}");
        }
    }

    #[test]
    fn hosts_of_redis_in_each_form() {
        for (text, host) in [
            ("10.0.0.1", tcp_host("10.0.0.1", 6379)),
            ("/run/redis/redis.sock", socket("/run/redis/redis.sock", 0)),
            ("unix:/run/redis.sock", socket("/run/redis.sock", 0)),
            ("unix:run", None),
            ("redis://10.0.0.1", None),
        ] {
            assert_eq!(redis_host(text).ok(), host, "{text}");
        }
    }

    #[test]
    fn addresses_to_listen_on() {
        for (text, shown) in [
            ("127.0.0.1:12847", Some("127.0.0.1:12847")),
            ("[::]:80", Some("[::]:80")),
            ("unix:/run/x.sock", Some("unix:/run/x.sock")),
            ("/run/x.sock", Some("unix:/run/x.sock")),
            ("localhost:80", None),
            ("127.0.0.1", None),
            ("127.0.0.1:0", None),
            ("unix:x.sock", None),
            (":80", None),
            ("", None),
        ] {
            assert_eq!(listen(text).ok().map(|listen| listen.to_string()).as_deref(), shown);
        }
    }

    #[test]
    fn units_that_systemd_could_start() {
        let longest = format!("{}.service", "x".repeat(UNIT_BYTES_MAX - 8));
        let too_long = format!("x{longest}");
        for (text, valid) in [
            ("equity.service", true),
            ("bot@equity.service", true),
            ("dev-\\x2d.mount", true),
            ("a.b.timer", true),
            (longest.as_str(), true),
            (too_long.as_str(), false),
            ("equity", false),
            ("equity.scope", false),
            ("bot@.service", false),
            ("@x.service", false),
            (".service", false),
            ("a b.service", false),
            ("a/b.service", false),
            ("", false),
        ] {
            assert_eq!(unit(text).is_ok(), valid, "{text}");
        }
    }

    #[test]
    fn names_at_their_limits() {
        for (text, valid) in [
            ("trading", true),
            ("0-a_b", true),
            ("-a", false),
            ("_a", false),
            ("A", false),
            ("a.b", false),
            ("", false),
            (&"x".repeat(63), true),
            (&"x".repeat(64), false),
        ] {
            assert_eq!(name(text).is_ok(), valid, "{text}");
        }
    }

    #[test]
    fn durations_at_their_bounds() {
        let span = Span {
            default: Duration::ZERO,
            least: Duration::from_millis(100),
            most: Duration::from_secs(300),
        };
        for (text, valid) in [
            ("100ms", true),
            ("5m", true),
            ("1m 30s", true),
            ("99ms", false),
            ("5m 1ms", false),
            ("10", false),
            ("", false),
            ("-10s", false),
            ("99999999999999999999s", false),
            ("18446744073709551615years", false),
        ] {
            assert_eq!(duration(text, span).is_ok(), valid, "{text}");
        }
    }

    #[test]
    fn tables_with_and_without_a_schema() {
        let found = |text| table(text).ok().map(|table| (table.schema, table.name));
        let expect = |schema: &str, name: &str| Some((schema.to_owned(), name.to_owned()));
        assert_eq!(found("bot_status"), expect("public", "bot_status"));
        assert_eq!(found("app.BotStatus"), expect("app", "BotStatus"));
        for text in ["", ".", "a.", ".b", "a.b.c", "\"a\".b", "a. b"] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_another_word_is_not() {
        let known = ["timeout", "cooldown", "bots", "units"];
        assert_eq!(nearest("timeot", &known), Some("timeout"));
        assert_eq!(nearest("Cool-down", &known), Some("cooldown"));
        assert_eq!(nearest("bot", &known), Some("bots"));
        assert_eq!(nearest("password", &known), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), &known), None);
    }
}
