//! The notable events: each has a name for `journalctl UNDERSTUDY_EVENT=`, a `MESSAGE_ID`, and a
//! text for `journalctl -x`.
//!
//! To add one: a line in the table. A test then asks for the catalogue and `docs/messages.md` to be
//! written again (`UPDATE_EXPECT=1`).

use std::fmt::Write as _;

/// How loud an event is in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loudness {
    /// Priority info.
    Info,
    /// Priority warning.
    Warning,
    /// Priority err.
    Error,
}

macro_rules! notables {
    ($($variant:ident, $name:literal, $id:literal, $loudness:ident, $subject:literal, $text:literal;)+) => {
        /// An event that a person may look for in the journal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Notable {
            $(#[doc = $subject] $variant,)+
        }

        impl Notable {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Value of `UNDERSTUDY_EVENT=`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Value of `MESSAGE_ID=`, made by `systemd-id128 new`.
            #[must_use]
            pub const fn message_id(self) -> &'static str {
                match self { $(Self::$variant => $id,)+ }
            }

            /// How loud it is.
            #[must_use]
            pub const fn loudness(self) -> Loudness {
                match self { $(Self::$variant => Loudness::$loudness,)+ }
            }

            const fn subject(self) -> &'static str {
                match self { $(Self::$variant => $subject,)+ }
            }

            const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

notables! {
    DaemonStarted, "daemon_started", "cc96023ca2d84c5b85d01fa38a83048f", Info,
        "understudy started",
        "understudy began to watch. Until it has seen the heartbeats unchanged for a \
         whole window, it takes nothing over.";
    DaemonStopping, "daemon_stopping", "040ed9edf6bf40629c6073176f8b16cc", Info,
        "understudy stopped",
        "understudy ended in good order. Units that run go on running. Nobody watches \
         from this node until it is started again.";
    ConfigurationReloaded, "configuration_reloaded", "3c2f8be73b85480eb83fd61d4d797012", Info,
        "Configuration loaded",
        "The configuration on disk is valid and in use.";
    ConfigurationRefused, "configuration_refused", "b32371a5b8b14590b76802a24e2199c5", Error,
        "Configuration refused",
        "The configuration on disk has faults, which the message lists. understudy goes \
         on with the one that it had. Mend the file and run `systemctl reload \
         understudy`.";
    GroupFresh, "group_fresh", "a0f38297eb484251bf61376f320229cc", Info,
        "Heartbeats of @UNDERSTUDY_GROUP@ are back",
        "A heartbeat changed after a whole window of silence.";
    GroupStale, "group_stale", "d566f6d57fe54788a44fc64800100ff5", Warning,
        "Heartbeats of @UNDERSTUDY_GROUP@ are silent",
        "The heartbeats were read again and again and did not change for the whole \
         timeout, by this node's own clock. understudy takes over now, or says why not.";
    GroupUnknown, "group_unknown", "9a85581f342843bea6b2b2f2da7b9f81", Warning,
        "Nobody can tell whether @UNDERSTUDY_GROUP@ is alive",
        "The database could not be read, or what it said proves nothing. That is never a \
         reason for a failover. When it can be read again, a whole new window of silence \
         must pass first.";
    GroupKnown, "group_known", "264e3642d8164d42b5137f5084588edf", Info,
        "Heartbeats of @UNDERSTUDY_GROUP@ can be read again",
        "A new window begins.";
    WindowRestarted, "window_restarted", "efa5c428afbb499eb9a584e08871876d", Warning,
        "A new window begins for @UNDERSTUDY_GROUP@",
        "Something happened that may explain silence without a dead primary: another \
         server answers, the process or host stood still, or the group changed hands. \
         Silence is counted from now.";
    GroupBlind, "group_blind", "c49bb14075c940e995aa666bfc22f7ce", Error,
        "understudy is blind for @UNDERSTUDY_GROUP@",
        "The heartbeats have not been readable for longer than blind_after. There is NO \
         automatic failover while this lasts. Look at the database and at the way to it; \
         `understudy check` says more.";
    SightRestored, "sight_restored", "6a49022ee20d4faa947a05f3323f98a2", Info,
        "understudy sees @UNDERSTUDY_GROUP@ again",
        "The heartbeats can be read again after a long time.";
    TakeoverBlocked, "takeover_blocked", "cdc9c72c015e4bff9047910cc82245c5", Error,
        "@UNDERSTUDY_GROUP@ is silent and nothing is done about it",
        "The heartbeats are silent, but something keeps understudy from taking over. The \
         message says what, and how to end it. To take over by hand: `understudy failover \
         @UNDERSTUDY_GROUP@`.";
    LeaseAcquired, "lease_acquired", "ef4f445bb24e4457acf40eee159b6a0d", Warning,
        "This node is taking over @UNDERSTUDY_GROUP@",
        "The database granted the lease with epoch @UNDERSTUDY_EPOCH@. The steps of the \
         takeover follow.";
    LeaseRefused, "lease_refused", "3c72049a907b4af5928511a94a23d558", Warning,
        "The lease of @UNDERSTUDY_GROUP@ was not granted",
        "The database refused, in the same transaction in which it looked at the \
         heartbeats once more. The message says why. Nothing was done.";
    FailoverResumed, "failover_resumed", "32e5ced89fc7464991ebf82b2e35dcf4", Warning,
        "A takeover of @UNDERSTUDY_GROUP@ goes on after a restart",
        "understudy was restarted in the middle of a takeover and goes on where it \
         stopped. Every step can be repeated.";
    TenureAdopted, "tenure_adopted", "51387ba6007e4f9fa29074eead2c5a0a", Info,
        "This node has @UNDERSTUDY_GROUP@",
        "understudy was restarted; the group was taken over by this node before.";
    TenureContested, "tenure_contested", "4b0a8c8eb7b346dda631a26b720ccf6b", Error,
        "Somebody else runs @UNDERSTUDY_GROUP@",
        "This node holds the lease, but the bots beat and their units do not run here. \
         understudy does nothing until a person says who has the group: `understudy \
         failback` (they run there) or `understudy failover` (they should run here).";
    StepDone, "step_done", "1959e5ae66334e4c8b236a5acdc8fe90", Info,
        "@UNDERSTUDY_STEP@ of @UNDERSTUDY_GROUP@ done",
        "A step of the takeover ended, and its effect was read back.";
    StepFailed, "step_failed", "4381d32ead8d461e9b801cfe50537e4f", Warning,
        "@UNDERSTUDY_STEP@ of @UNDERSTUDY_GROUP@ failed",
        "An attempt of a step failed. It is tried again.";
    StepWarning, "step_warning", "706c10dce48c43f682690593f1a87d2b", Error,
        "@UNDERSTUDY_STEP@ of @UNDERSTUDY_GROUP@ needs a person",
        "The takeover goes on, but something is not as it should be and will not mend \
         itself. The message says what to do.";
    UnitsActive, "units_active", "5a0ce1155587456c82196d99dac9b671", Info,
        "The units of @UNDERSTUDY_GROUP@ are active",
        "systemd started them. They have to stay active through the settle time, and \
         their bots have to beat.";
    FailoverCompleted, "failover_completed", "737a625274ed42e8829bf19d905d26ce", Warning,
        "Failover of @UNDERSTUDY_GROUP@ completed",
        "Every step is done and every bot beats from this node. Find out what became of \
         the old primary, and keep it from starting its bots again. `understudy history` \
         has the timeline.";
    FailoverDegraded, "failover_degraded", "0f316dbe046343d3b66fcca5db3dda8b", Error,
        "Failover of @UNDERSTUDY_GROUP@ is stuck",
        "A step failed repeatedly. The lease is kept, nothing is rolled back, and the \
         step is tried again and again. The message says what is wrong: mend it, and the \
         takeover goes on by itself.";
    Superseded, "superseded", "ff16191f9ac641ce91036e05c669d9bf", Error,
        "@UNDERSTUDY_GROUP@ went elsewhere",
        "A later tenure began: another node took the group, or a person gave it back. The \
         units here are being stopped.";
    UnitsStopped, "units_stopped", "43dc81deba8f40aeae6f772a41740d95", Info,
        "The units of @UNDERSTUDY_GROUP@ are stopped here",
        "They were stopped because the tenure of this node is over.";
    StopFailed, "stop_failed", "08dcc659440244e9ab8c03865e23ae04", Error,
        "The units of @UNDERSTUDY_GROUP@ could not be stopped",
        "The tenure of this node is over, and units still run here. Two copies may be \
         acting. Stop them by hand, now.";
    ActiveSilent, "active_silent", "91ec0aaa5d1740bdac9afd1aaaa059b9", Error,
        "@UNDERSTUDY_GROUP@ is silent on this node",
        "This node has the group, and its heartbeats do not change. Look at its units. \
         understudy does not restart them: a person may have stopped them.";
    ActiveBeats, "active_beats", "6c744776618b45dca84121e7c0d2613f", Info,
        "@UNDERSTUDY_GROUP@ beats again on this node",
        "The heartbeats from this node are back.";
    GuardGone, "guard_gone", "2e385012bf41420999e9cc0ede68807c", Error,
        "The guard of @UNDERSTUDY_GROUP@ is gone",
        "The process that renews the lease ended, or stopped renewing: it could not reach the \
         store for too long, was refused, or was killed. systemd stops the units here, so that \
         another node may have the group. If the lease is still this node's afterwards, it takes \
         the group again by itself. The journal of understudy-lease@@UNDERSTUDY_GROUP@ says why.";
    NoPeer, "no_peer", "4f98a631ce054473b07ec93521937da3", Error,
        "@UNDERSTUDY_GROUP@ does not run, and nobody else can have it",
        "Units on this node failed for good, and no other node is ready to run them, or the \
         cooldown is not over. They are started once more. Look at their logs.";
    HandingOver, "handing_over", "d0c8f887389b49b0bb57f523b9d927ae", Warning,
        "@UNDERSTUDY_GROUP@ is being handed over",
        "An operator asked for it, or the units here do not run any more. The units here are \
         stopped and seen to be dead before the other node gets the lease.";
    HandedOver, "handed_over", "102a72ec4a964174bc35fb72dba1e676", Warning,
        "@UNDERSTUDY_GROUP@ was handed over",
        "The units here are dead and the lease is free for the other node. Nothing runs here \
         any more.";
    HandOverFailed, "hand_over_failed", "2de9c64b3bf24ea2babbd68f018c1ff7", Error,
        "@UNDERSTUDY_GROUP@ could not be handed over",
        "Something went wrong before the lease was given away, so the group goes on on this \
         node. The message says what.";
    RedisRejoined, "redis_rejoined", "2018949fe99e4c66841823d1538c2838", Info,
        "Redis of @UNDERSTUDY_GROUP@ follows the primary",
        "The Redis of this node is a replica of the primary's again. If it had data of its own, \
         a copy was kept.";
    RedisRejoinFailed, "redis_rejoin_failed", "64d658141414453e8809c52db7a5d20a", Warning,
        "Redis of @UNDERSTUDY_GROUP@ does not follow the primary",
        "Until it does, this node could not take over without loss. It is tried again and \
         again. The message says what is wrong.";
    StandbyNotReady, "standby_not_ready", "4476f29609884cf0b2e96c01b1ab2213", Error,
        "This node could not take over @UNDERSTUDY_GROUP@",
        "If the primary died now, a takeover would not begin. The message says why. \
         `understudy check` shows everything at once.";
    StandbyReady, "standby_ready", "081c0bf7bf094839b9c4d766efbfaf19", Info,
        "This node could take over @UNDERSTUDY_GROUP@ again",
        "What stood in the way is gone.";
    AlertDelivered, "alert_delivered", "b96318c1348e4d34bdc8cef68f5a7410", Info,
        "An alert was delivered",
        "A channel took an alert.";
    AlertFailed, "alert_failed", "51455deb7c5642c79be7f24e93364fe2", Warning,
        "An alert is not delivered yet",
        "A channel did not take an alert. It is kept on disk and tried again.";
    AlertDead, "alert_dead", "21618fbb9ea44acead62a663e3bc6d04", Error,
        "An alert cannot be delivered",
        "A channel refuses an alert for good, so it was put aside. The message says \
         where. Correct the channel's configuration; `understudy check` shows it.";
    HttpListening, "http_listening", "a67caaf0eefa4ccc92fb6d46c1f4e2c9", Info,
        "Status page and metrics are served",
        "An address of [http] is listened on.";
    HttpFailed, "http_failed", "fa4761da205749908117060679e25be4", Warning,
        "Status page and metrics are not served",
        "An address of [http] cannot be listened on, or its certificate cannot be used. \
         understudy watches and takes over all the same, and tries again every 30 s. The \
         message says why: most often another program has the port, or the address is not \
         there yet. Mend it, or change http.listen and run `systemctl reload understudy`.";
    AlertResolved, "alert_resolved", "26dcdad254ad4b56ac9ecad4fac6d42f", Info,
        "What an alert told about @UNDERSTUDY_GROUP@ is over",
        "An earlier alert said that something is wrong, and it is not so any more.";
    AlertAcknowledged, "alert_acknowledged", "9cf2fbb3009440ce90e1dbe735b422b6", Info,
        "Somebody has seen the alerts of @UNDERSTUDY_GROUP@",
        "`understudy ack` was said, so nobody else is called about them.";
    DeadManFailed, "dead_man_failed", "6150d5dbdf724f93a67d41b509d34830", Warning,
        "The dead-man's ping fails",
        "understudy is well, but whoever watches over it does not hear so, and will call \
         a person. Look at the way to the address under [alerts.dead_man].";
    DeadManWorks, "dead_man_works", "efc909c3e7864d7fafaa7b6669aeec31", Info,
        "The dead-man's ping works",
        "Whoever watches over understudy hears that it is well.";
    AlertTest, "alert_test", "602a7e02cbb345a987afbdcea8b2c747", Info,
        "A test of the alerts",
        "Somebody tried with `understudy alert test` whether alerts arrive. Nothing is \
         wrong, and nothing is to be done.";
    GuardHolds, "guard_holds", "593516accf514ef894b17f2fda87ecca", Info,
        "This node holds the lease of @UNDERSTUDY_GROUP@",
        "A renewal with epoch @UNDERSTUDY_EPOCH@ was granted. Units of the group may start on this \
         node as long as renewals are granted.";
    RenewalFailed, "renewal_failed", "b1caf857a5c94ee2900e609960901d66", Warning,
        "The lease of @UNDERSTUDY_GROUP@ could not be renewed",
        "The database did not answer. The lease is renewed again and again; if none is granted \
         within fence_after, the units are stopped, unless the group has on_store_loss = \
         \"hold\". Look at the database and at the way to it.";
    RenewalAnswered, "renewal_answered", "a84bef78f4e9400181cdaa0bd833286b", Info,
        "The lease of @UNDERSTUDY_GROUP@ is renewed again",
        "The database answers again.";
    FenceBegun, "fence_begun", "24d550b157e14c59a08339a432a217e9", Error,
        "The units of @UNDERSTUDY_GROUP@ are being stopped",
        "This node may not run them any more: the message says why. What does not stop by itself \
         is killed. Another node takes the group when this is certain to be over, or this node \
         takes it again.";
    FenceDone, "fence_done", "378ac28b70274dc19578890642b34544", Warning,
        "No process of @UNDERSTUDY_GROUP@ is left",
        "The control group of the units is empty.";
    FenceIncomplete, "fence_incomplete", "54efd18fad2d41c986fdf0c75e00f5c7", Error,
        "Processes of @UNDERSTUDY_GROUP@ do not die",
        "They were killed and are still there, most likely in state D, waiting for a disk or a \
         file system. They can do nothing in it, but act again when it ends. Reset the host unless \
         you know that they cannot harm.";
    LeaseReleased, "lease_released", "7bc91c62d00946149ec26b3023a437ab", Info,
        "The lease of @UNDERSTUDY_GROUP@ was given back",
        "No process of the group was left on this node. Another node may have it at once, if it \
         was meant for it, or after a window.";
    GateRefused, "gate_refused", "0183c5223d854caa8121eb5cf5608523", Warning,
        "A unit of @UNDERSTUDY_GROUP@ was not started",
        "This node does not hold the lease of the group, or cannot tell, so that the unit stays \
         down whoever wants it started. The message says what is missing. `understudy status` \
         says who has the group.";
    GlassBroken, "glass_broken", "d465d7d1fdaf4051be1fa8412e3ebf03", Error,
        "BREAK-GLASS for @UNDERSTUDY_GROUP@",
        "An operator said that units of the group run on this node without a lease. Nothing keeps \
         another node from running them as well. End it as soon as you can: `understudy gate \
         @UNDERSTUDY_GROUP@ --mend`.";
    GlassMended, "glass_mended", "5eca67258eb34e47a075faad6d42be58", Warning,
        "The glass of @UNDERSTUDY_GROUP@ is mended",
        "Units of the group run on this node only while it holds the lease.";
    CheckRed, "check_red", "7a2be185e9b6411ea4cdff17d2bfbf19", Error,
        "A check is red",
        "What is measured is beyond its critical threshold, or cannot be measured, for as \
         long as the check's `for` says. Nothing is done about it but telling you: checks \
         never cause or delay a failover. `understudy health` shows all of them, and the \
         check's runbook what to do.";
    CheckYellow, "check_yellow", "ca742adbf9d548b0b9e143920d193983", Warning,
        "A check is yellow",
        "What is measured is beyond its warning threshold for as long as the check's `for` \
         says. `understudy health` shows all of them.";
    CheckGreen, "check_green", "c4232a85fc0c47aeb0cd9016d593d618", Info,
        "A check is green again",
        "What is measured is as it should be, for as long as the check's `recover_for` says.";
    MonitoringFailed, "monitoring_failed", "64f14c2dcef44ac391dfc9ac096b5636", Warning,
        "Checks are not measured",
        "The monitoring could not be started, or a server that checks ask cannot be used as \
         it is configured. understudy watches and takes over all the same. The message says \
         what is wrong.";
    Remark, "remark", "6d43e21132e74469b98b9d2359d04dda", Info,
        "Note about @UNDERSTUDY_GROUP@",
        "Something worth keeping, such as the output of a fence command or an order of an \
         operator.";
}

impl Notable {
    /// What it means and what to do, about one group.
    #[must_use]
    pub fn explanation(self, group: &str) -> String {
        self.text()
            .replace("@UNDERSTUDY_GROUP@", group)
            .replace(" with epoch @UNDERSTUDY_EPOCH@", "")
    }
}

/// The catalogue for `journalctl -x`, as installed with the package.
#[must_use]
pub fn catalog() -> String {
    let mut text = String::from("# Made from src/telemetry/message_id.rs. Do not edit.\n");
    for notable in Notable::ALL {
        // Writing to a string does not fail.
        let _written = write!(
            text,
            "\n-- {}\nSubject: {}\nDefined-By: understudy\nDocumentation: man:understudy(8)\n\n{}\n",
            notable.message_id(),
            notable.subject(),
            wrapped(notable.text()),
        );
    }
    text
}

/// The same for people, as `docs/messages.md`.
#[must_use]
pub fn document() -> String {
    let mut text = String::from(
        "# Messages\n\nMade from `src/telemetry/message_id.rs`. Do not edit.\n\n\
         Every notable event has fields of its own in the journal: `UNDERSTUDY_EVENT`, \
         `MESSAGE_ID`, and where\nthey apply `UNDERSTUDY_GROUP`, `UNDERSTUDY_EPOCH` and \
         `UNDERSTUDY_STEP`. Look for one with\n`journalctl UNDERSTUDY_EVENT=failover_completed`, \
         and add `-x` for the explanations below.\n",
    );
    for notable in Notable::ALL {
        let group = notable.subject().replace("@UNDERSTUDY_GROUP@", "the group");
        let subject = group.replace("@UNDERSTUDY_STEP@", "a step");
        let body = notable.text().replace("@UNDERSTUDY_GROUP@", "GROUP");
        let body = body.replace("@UNDERSTUDY_EPOCH@", "EPOCH");
        // Writing to a string does not fail.
        let _written = write!(
            text,
            "\n## {}\n\n{subject}. {}\n\n{}\n\n`MESSAGE_ID={}`\n",
            notable.name(),
            match notable.loudness() {
                Loudness::Info => "Priority info.",
                Loudness::Warning => "Priority warning.",
                Loudness::Error => "Priority err.",
            },
            wrapped(&body),
            notable.message_id(),
        );
    }
    text
}

/// Breaks a text into lines of at most 78 characters.
fn wrapped(text: &str) -> String {
    const WIDTH: usize = 78;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        if let Some(line) = lines.last_mut() {
            if line.is_empty() {
                line.push_str(word);
                continue;
            } else if line.len() + 1 + word.len() <= WIDTH {
                line.push(' ');
                line.push_str(word);
                continue;
            }
        }
        lines.push(word.to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_catalogue_and_the_document_are_those_of_the_table() {
        for (path, made) in
            [("systemd/understudy.catalog", catalog()), ("docs/messages.md", document())]
        {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
            if std::env::var_os("UPDATE_EXPECT").is_some() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &made).unwrap();
            }
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(found, made, "{} is old; run again with UPDATE_EXPECT=1", path.display());
        }
    }

    #[test]
    fn names_and_ids_are_unique_and_well_formed() {
        let names: BTreeSet<_> = Notable::ALL.iter().map(|notable| notable.name()).collect();
        let ids: BTreeSet<_> = Notable::ALL.iter().map(|notable| notable.message_id()).collect();
        assert_eq!((names.len(), ids.len()), (Notable::ALL.len(), Notable::ALL.len()));
        for id in ids {
            assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        }
    }
}
