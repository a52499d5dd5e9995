//! The manual pages and completions that the package ships say what `--help` says, as they are made
//! from the same definition. `UPDATE_EXPECT=1` writes them again.

#![allow(clippy::expect_used, reason = "a test that cannot go on must say so")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use understudy::cli::Options;

/// Section of the manual for what administrators run.
const SECTION: &str = "8";

/// What the page of the program itself has besides what `--help` says.
const FILES: &str = r#".SH FILES
.TP
.I /etc/understudy/understudy.toml
The configuration, with
.I /etc/understudy/understudy.toml.d/*.toml
read after it. See
.BR understudy.toml (5).
.TP
.I /etc/understudy/credentials/
Passwords and tokens, one in each file. systemd hands them to the service.
.TP
.I /etc/polkit\-1/rules.d/50\-understudy.rules
Lets the service manage the configured units. Made by
.BR understudy\-permit (8).
.TP
.I /var/lib/understudy/
What must survive a crash: the memory of a takeover, undelivered alerts.
.TP
.I /run/understudy/GROUP.env
The epoch of a group's tenure, for
.B EnvironmentFile=
of its units.
.SH "SEE ALSO"
.BR understudy.toml (5),
.BR systemctl (1),
.BR journalctl (1),
.I /usr/share/doc/understudy/operations.md
"#;

#[test]
fn what_the_package_ships_is_what_help_says() {
    let made = made();
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    for directory in ["packaging/man", "packaging/completions"] {
        for path in files_of(directory) {
            let known = made.contains_key(&path);
            assert!(known || update, "{} belongs to no command; remove it", path.display());
            if !known {
                fs::remove_file(path).expect("an old file can be removed");
            }
        }
    }
    for (path, text) in made {
        if update {
            fs::write(path, text).expect("a file can be written");
            continue;
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "{} is old; run again with UPDATE_EXPECT=1", path.display());
    }
}

fn files_of(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the directory is there");
    entries.map(|entry| entry.expect("it can be listed").path()).collect()
}

/// All files by their path.
fn made() -> BTreeMap<PathBuf, String> {
    // It would be a page of its own.
    let mut command = Options::command().disable_help_subcommand(true);
    command.build();
    let mut made = BTreeMap::new();
    page(&command, &mut made);
    for (shell, name) in
        [(Shell::Bash, "understudy"), (Shell::Zsh, "_understudy"), (Shell::Fish, "understudy.fish")]
    {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut Options::command(), "understudy", &mut text);
        made.insert(Path::new("packaging/completions").join(name), utf8(text));
    }
    made
}

/// The page of a command and those of the commands below it.
fn page(command: &Command, made: &mut BTreeMap<PathBuf, String>) {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .section(SECTION)
        .source(format!("understudy {}", env!("CARGO_PKG_VERSION")))
        .manual("understudy");
    let mut text = Vec::new();
    man.render(&mut text).expect("a page can be made");
    let mut text = utf8(text);
    if command.get_subcommands().next().is_some() {
        text += FILES;
    } else {
        text += &format!(".SH \"SEE ALSO\"\n.BR understudy ({SECTION})\n");
    }
    made.insert(Path::new("packaging/man").join(format!("{name}.{SECTION}")), text);
    for below in command.get_subcommands() {
        page(below, made);
    }
}

fn utf8(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("it is text")
}
