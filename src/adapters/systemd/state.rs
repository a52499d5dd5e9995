//! What a unit says of itself.
//!
//! systemd's words are closed enums here with an `Other` for those of a later systemd, so that they
//! are compared by name in one place.

use std::fmt;

/// An enum whose values are words of systemd's.
macro_rules! words {
    (
        $(#[$doc:meta])*
        $name:ident { $($(#[$value_doc:meta])* $value:ident = $word:literal,)+ }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$value_doc])* $value,)+
            /// A word that was not known when this was written.
            Other(String),
        }

        impl $name {
            /// As systemd writes it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$value => $word,)+
                    Self::Other(word) => word,
                }
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                match &*word {
                    $($word => Self::$value,)+
                    _ => Self::Other(word),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

/// One reading of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitState {
    /// Its name, as asked for.
    pub unit: String,
    /// Whether systemd could read its files.
    pub load: Load,
    /// What was wrong with them, in systemd's words; empty if nothing.
    pub load_error: String,
    /// Whether its files changed since systemd read them, so that it would start something else
    /// than they say.
    pub needs_reload: bool,
    /// Whether it starts at boot. On a node that is standby it must not.
    pub enabled: Enabled,
    /// What it must have running before it can start: Requires=, Requisite= and BindsTo=.
    pub requires: Vec<String>,
    /// Whether it runs.
    pub active: Active,
    /// The same in more detail, in words that depend on the kind of unit.
    pub sub: String,
    /// Whether the Condition…= lines were met when it was last started; true before that.
    pub conditions_met: bool,
    /// Its present run, or its last one.
    pub invocation: Option<Invocation>,
    /// Its main process, if it is a service that has one now.
    pub main_pid: Option<u32>,
    /// How its last run ended; success if there was none.
    pub ending: Ending,
    /// What systemd is about to do with it, if anything.
    pub job: Option<Job>,
}

impl UnitState {
    /// Whether the unit does its work.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.active, Active::Active | Active::Reloading | Active::Refreshing)
    }

    /// Whether the unit has ended. Processes of it can be left all the same.
    #[must_use]
    pub fn is_down(&self) -> bool {
        matches!(self.active, Active::Inactive | Active::Failed)
    }
}

impl UnitState {
    /// What it is and does, without its name.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self.load {
            Load::Loaded => format!("{} ({})", self.active, self.sub),
            Load::NotFound
            | Load::Masked
            | Load::BadSetting
            | Load::Error
            | Load::Stub
            | Load::Merged
            | Load::Other(_) => self.load.to_string(),
        }
    }
}

impl fmt::Display for UnitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}", self.unit, self.in_words())
    }
}

words! {
    /// Whether systemd could read a unit's files.
    Load {
        /// It could.
        Loaded = "loaded",
        /// There are none.
        NotFound = "not-found",
        /// Somebody forbade the unit to start.
        Masked = "masked",
        /// A line in them is wrong, without which the unit makes no sense.
        BadSetting = "bad-setting",
        /// They could not be read.
        Error = "error",
        /// Not tried yet.
        Stub = "stub",
        /// The name is another one's alias.
        Merged = "merged",
    }
}

words! {
    /// Whether a unit runs.
    Active {
        /// It does.
        Active = "active",
        /// It does, and reads its configuration anew.
        Reloading = "reloading",
        /// It does, and its extensions are exchanged.
        Refreshing = "refreshing",
        /// It ended well, or never ran.
        Inactive = "inactive",
        /// It ended badly.
        Failed = "failed",
        /// It is being started, or waits for its next attempt.
        Activating = "activating",
        /// It is being stopped.
        Deactivating = "deactivating",
        /// It is being cleaned.
        Maintenance = "maintenance",
    }
}

words! {
    /// Whether a unit starts at boot.
    Enabled {
        /// It does.
        Enabled = "enabled",
        /// It does, until the next boot.
        EnabledRuntime = "enabled-runtime",
        /// It does not.
        Disabled = "disabled",
        /// It has no `[Install]` section: something else may start it.
        Static = "static",
        /// Its file is elsewhere and linked.
        Linked = "linked",
        /// The same, until the next boot.
        LinkedRuntime = "linked-runtime",
        /// It is another unit's alias.
        Alias = "alias",
        /// It cannot be enabled itself, but others are with it.
        Indirect = "indirect",
        /// It was made by a generator.
        Generated = "generated",
        /// It was made by a program, and is gone after a boot.
        Transient = "transient",
        /// It is masked.
        Masked = "masked",
        /// It is masked until the next boot.
        MaskedRuntime = "masked-runtime",
        /// Its file is broken.
        Bad = "bad",
        /// It has no file.
        NoFile = "",
    }
}

words! {
    /// How a service's last run ended.
    Outcome {
        /// Well, or it goes on, or there was none.
        Success = "success",
        /// It broke the protocol of its Type=, such as to leave without READY=1.
        Protocol = "protocol",
        /// It took too long to start or stop.
        Timeout = "timeout",
        /// A process left with a status other than 0.
        ExitCode = "exit-code",
        /// A process was killed by a signal.
        Signal = "signal",
        /// A process was killed by a signal and left a core dump.
        CoreDump = "core-dump",
        /// It did not feed its watchdog.
        Watchdog = "watchdog",
        /// It was started too often in a short time.
        StartLimitHit = "start-limit-hit",
        /// systemd lacked something to start it.
        Resources = "resources",
        /// The kernel killed it for want of memory.
        OomKill = "oom-kill",
        /// An ExecCondition= said no.
        ExecCondition = "exec-condition",
        /// A condition was not met.
        Condition = "condition",
    }
}

words! {
    /// How a job ended, which says little about the unit.
    JobResult {
        /// systemd had nothing more to do.
        Done = "done",
        /// Another job took its place.
        Canceled = "canceled",
        /// It took longer than JobTimeoutSec=.
        Timeout = "timeout",
        /// The unit failed.
        Failed = "failed",
        /// Something the unit requires did not start.
        Dependency = "dependency",
        /// The unit's state made it needless.
        Skipped = "skipped",
        /// An Assert…= was not met.
        Assert = "assert",
    }
}

/// How a unit's last run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// In systemd's word.
    pub outcome: Outcome,
    /// How the main process left, if it did.
    pub exit: Option<Exit>,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.exit {
            Some(exit) => write!(f, "result {}, the main process {exit}", self.outcome),
            None => write!(f, "result {}", self.outcome),
        }
    }
}

/// How a process left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Status(status) => {
                write!(f, "left with status {status}")?;
                // systemd's own statuses, for what goes wrong before the program runs.
                match status {
                    200 => f.write_str(" (its working directory is not accessible)"),
                    203 => f.write_str(" (its program is missing or not executable)"),
                    216 | 217 => f.write_str(" (its user or group does not exist)"),
                    226 => f.write_str(" (its mount namespace could not be set up)"),
                    238..=240 => f.write_str(" (one of its directories could not be made)"),
                    243 => f.write_str(" (its credentials could not be read)"),
                    _ => Ok(()),
                }
            }
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(signal) {
                Ok(signal) => write!(f, "was killed by {signal}"),
                Err(_) => write!(f, "was killed by signal {signal}"),
            },
        }
    }
}

/// Identity of one run of a unit.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Invocation(pub u128);

impl fmt::Debug for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Something that systemd is about to do with a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its number, which systemd does not give twice.
    pub id: u32,
    /// What it is and whether it runs or waits for others, if that was asked for.
    pub detail: Option<(String, String)>,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some((kind, state)) => write!(f, "{kind} job {} is {state}", self.id),
            None => write!(f, "job {} is not over", self.id),
        }
    }
}
