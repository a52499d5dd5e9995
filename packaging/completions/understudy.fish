# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_understudy_global_optspecs
    string join \n config= json h/help V/version
end

function __fish_understudy_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_understudy_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_understudy_using_subcommand
    set -l cmd (__fish_understudy_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c understudy -n "__fish_understudy_needs_command" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_needs_command" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c understudy -n "__fish_understudy_needs_command" -s V -l version -d 'Print version'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "run" -d 'Run the daemon. systemd does this; see `systemctl status understudy`'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "setup" -d 'Make or upgrade understudy\'s schema in the database, and its rows for the configured groups'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "check" -d 'Find out whether a failover would work: configuration, database, heartbeats, Redis, units'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "health" -d 'Show what the checks of [check.NAME] say: score, groups, and what is not green'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "status" -d 'Show who has each group, the heartbeats and what would happen next'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "explain" -d 'Say why a group would be taken over now, or why not: the daemon\'s own decision, in words'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "replay" -d 'Make the recorded decisions of this node once more, and see that they come out the same'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "baseline" -d 'Save what checks are like when all is well, and compare with it later'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "failover" -d 'Take a group over now, because its primary is known to be dead'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "switchover" -d 'Move a group to another node on purpose, with nothing lost. Paired mode only'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "beat" -d 'Write the heartbeat of an application that has none of its own'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "failback" -d 'Say that the primary\'s node has a group again, after its bots were stopped here'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "hold" -d 'Say that no understudy may take a group over, for a while or until released'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "release" -d 'End a hold'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "ack" -d 'Say that you have looked: at the alerts of a group, or at one, and at the last failovers'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "alert" -d 'Try whether alerts arrive'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "permit" -d 'Let the daemon\'s user manage the configured units, by a rule for polkit'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "protect" -d 'Bind the units of a group in paired mode to its guard, by drop-ins for systemd'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "gate" -d 'Say whether units of a group may start on this node, and exit with 0 if so. Units ask this'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "lease" -d 'Renew the lease of a group, and stop its units when that fails. systemd runs this'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "history" -d 'Show what happened: failovers with their timeline, holds, orders'
complete -c understudy -n "__fish_understudy_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c understudy -n "__fish_understudy_using_subcommand run" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand run" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand run" -s h -l help -d 'Print help'
complete -c understudy -n "__fish_understudy_using_subcommand setup" -l user -d 'Log in as this role, which may create a schema; the daemon\'s own role need not be allowed to' -r
complete -c understudy -n "__fish_understudy_using_subcommand setup" -l password-file -d 'File with that role\'s password' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand setup" -l application -d 'Role of an application that calls fence_check(). May be repeated' -r
complete -c understudy -n "__fish_understudy_using_subcommand setup" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand setup" -l print -d 'Print the SQL for a database administrator instead of running it'
complete -c understudy -n "__fish_understudy_using_subcommand setup" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand setup" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c understudy -n "__fish_understudy_using_subcommand check" -l save -d 'Also write what was found, and what the checks of the configuration say, to DIRECTORY/health_report_YYYYMMDD_HHMMSS.json (UTC)' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand check" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand check" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c understudy -n "__fish_understudy_using_subcommand health" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand health" -l now -d 'Measure here and now instead of asking the daemon. Without what came before, `for` means nothing, and rates are of one sample'
complete -c understudy -n "__fish_understudy_using_subcommand health" -l all -d 'Show the green ones, too'
complete -c understudy -n "__fish_understudy_using_subcommand health" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand health" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c understudy -n "__fish_understudy_using_subcommand status" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand status" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand status" -s h -l help -d 'Print help'
complete -c understudy -n "__fish_understudy_using_subcommand explain" -l recorded -d 'By a recording of the daemon instead of what it knows now' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand explain" -l at -d 'At this time of the recording, such as 2026-11-24T08:12:00Z; otherwise at its end' -r
complete -c understudy -n "__fish_understudy_using_subcommand explain" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand explain" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand explain" -s h -l help -d 'Print help'
complete -c understudy -n "__fish_understudy_using_subcommand replay" -l group -d 'Only this group' -r
complete -c understudy -n "__fish_understudy_using_subcommand replay" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand replay" -l all -d 'Also what led to nothing, such as each read of the database'
complete -c understudy -n "__fish_understudy_using_subcommand replay" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand replay" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and not __fish_seen_subcommand_from save compare list remove help" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and not __fish_seen_subcommand_from save compare list remove help" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and not __fish_seen_subcommand_from save compare list remove help" -s h -l help -d 'Print help'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and not __fish_seen_subcommand_from save compare list remove help" -f -a "save" -d 'Save what all checks of this node measured in the last span, under a name'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and not __fish_seen_subcommand_from save compare list remove help" -f -a "compare" -d 'Compare what was measured lately with a baseline'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and not __fish_seen_subcommand_from save compare list remove help" -f -a "list" -d 'Show what is saved'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and not __fish_seen_subcommand_from save compare list remove help" -f -a "remove" -d 'Forget a baseline'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and not __fish_seen_subcommand_from save compare list remove help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from save" -l over -d 'How far back. Not further than samples are kept (monitor.keep)' -r
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from save" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from save" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from save" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from compare" -l over -d 'What is compared with it: the mean of so long' -r
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from compare" -l limit -d 'How many standard deviations from the mean are far' -r
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from compare" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from compare" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from compare" -s h -l help -d 'Print help'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from list" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from list" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from remove" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from remove" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from help" -f -a "save" -d 'Save what all checks of this node measured in the last span, under a name'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from help" -f -a "compare" -d 'Compare what was measured lately with a baseline'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from help" -f -a "list" -d 'Show what is saved'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from help" -f -a "remove" -d 'Forget a baseline'
complete -c understudy -n "__fish_understudy_using_subcommand baseline; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c understudy -n "__fish_understudy_using_subcommand failover" -l reason -d 'Why, for the history' -r
complete -c understudy -n "__fish_understudy_using_subcommand failover" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand failover" -l force -d 'Although the heartbeats move, or a bot was stopped on purpose. Two copies may run'
complete -c understudy -n "__fish_understudy_using_subcommand failover" -l yes -d 'Do not ask'
complete -c understudy -n "__fish_understudy_using_subcommand failover" -l dry-run -d 'Say what would happen, and do nothing'
complete -c understudy -n "__fish_understudy_using_subcommand failover" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand failover" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c understudy -n "__fish_understudy_using_subcommand switchover" -l to -d 'The node that gets the group; without it the first of `nodes` that is ready' -r
complete -c understudy -n "__fish_understudy_using_subcommand switchover" -l reason -d 'Why, for the history' -r
complete -c understudy -n "__fish_understudy_using_subcommand switchover" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand switchover" -l yes -d 'Do not ask'
complete -c understudy -n "__fish_understudy_using_subcommand switchover" -l dry-run -d 'Say what would happen, and do nothing'
complete -c understudy -n "__fish_understudy_using_subcommand switchover" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand switchover" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c understudy -n "__fish_understudy_using_subcommand beat" -l bot -d 'Whose heartbeat; one of the bots of a group' -r
complete -c understudy -n "__fish_understudy_using_subcommand beat" -l every -d 'Go on, with so much time between two heartbeats' -r
complete -c understudy -n "__fish_understudy_using_subcommand beat" -l set -d 'Write another column of the row, too; without "=" it becomes NULL. May be repeated. The status stays as it is unless it is among them' -r
complete -c understudy -n "__fish_understudy_using_subcommand beat" -l user -d 'Log in as this role instead of the daemon\'s; it must be allowed to write the table' -r
complete -c understudy -n "__fish_understudy_using_subcommand beat" -l password-file -d 'File with that role\'s password' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand beat" -l check-timeout -d 'How long the check may take' -r
complete -c understudy -n "__fish_understudy_using_subcommand beat" -l check -d 'Beat only if this program leaves with status 0. Everything after it is its arguments. No shell is involved; its environment is PATH and UNDERSTUDY_BOT' -r
complete -c understudy -n "__fish_understudy_using_subcommand beat" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand beat" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand beat" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c understudy -n "__fish_understudy_using_subcommand failback" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand failback" -l force -d 'Do not ask systemd whether the units are stopped here'
complete -c understudy -n "__fish_understudy_using_subcommand failback" -l yes -d 'Do not ask, in paired mode'
complete -c understudy -n "__fish_understudy_using_subcommand failback" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand failback" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c understudy -n "__fish_understudy_using_subcommand hold" -l for -d 'For how long, such as 2h or 30m. Without it, until released' -r
complete -c understudy -n "__fish_understudy_using_subcommand hold" -l reason -d 'Why; everyone sees it in `status` and in alerts' -r
complete -c understudy -n "__fish_understudy_using_subcommand hold" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand hold" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand hold" -s h -l help -d 'Print help'
complete -c understudy -n "__fish_understudy_using_subcommand release" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand release" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand release" -s h -l help -d 'Print help'
complete -c understudy -n "__fish_understudy_using_subcommand ack" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand ack" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand ack" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c understudy -n "__fish_understudy_using_subcommand alert; and not __fish_seen_subcommand_from test help" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand alert; and not __fish_seen_subcommand_from test help" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand alert; and not __fish_seen_subcommand_from test help" -s h -l help -d 'Print help'
complete -c understudy -n "__fish_understudy_using_subcommand alert; and not __fish_seen_subcommand_from test help" -f -a "test" -d 'Send a test through each channel, or one, and say whether it arrived'
complete -c understudy -n "__fish_understudy_using_subcommand alert; and not __fish_seen_subcommand_from test help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c understudy -n "__fish_understudy_using_subcommand alert; and __fish_seen_subcommand_from test" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand alert; and __fish_seen_subcommand_from test" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand alert; and __fish_seen_subcommand_from test" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c understudy -n "__fish_understudy_using_subcommand alert; and __fish_seen_subcommand_from help" -f -a "test" -d 'Send a test through each channel, or one, and say whether it arrived'
complete -c understudy -n "__fish_understudy_using_subcommand alert; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c understudy -n "__fish_understudy_using_subcommand permit" -l user -d 'User that the daemon runs as' -r
complete -c understudy -n "__fish_understudy_using_subcommand permit" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand permit" -l print -d 'Show the rule instead of writing it'
complete -c understudy -n "__fish_understudy_using_subcommand permit" -l remove -d 'Remove the rule, so that the daemon may manage no unit'
complete -c understudy -n "__fish_understudy_using_subcommand permit" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand permit" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c understudy -n "__fish_understudy_using_subcommand protect" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand protect" -l undo -d 'Remove what was written'
complete -c understudy -n "__fish_understudy_using_subcommand protect" -l print -d 'Show what would be written'
complete -c understudy -n "__fish_understudy_using_subcommand protect" -l no-reload -d 'Do not have systemd read it. It does so at the next reload or boot; units that run are not looked at'
complete -c understudy -n "__fish_understudy_using_subcommand protect" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand protect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c understudy -n "__fish_understudy_using_subcommand gate" -l break-glass -d 'Let units of the group run on this node without a lease, until mended or rebooted, and say why' -r
complete -c understudy -n "__fish_understudy_using_subcommand gate" -l runtime-dir -d 'Where the guard answers' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand gate" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand gate" -l mend -d 'Take that back. Units that run without a lease are stopped'
complete -c understudy -n "__fish_understudy_using_subcommand gate" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand gate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c understudy -n "__fish_understudy_using_subcommand lease" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand lease" -l check -d 'Only say whether there is a lease to renew: exits with 0 if so, with 1 if not'
complete -c understudy -n "__fish_understudy_using_subcommand lease" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand lease" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c understudy -n "__fish_understudy_using_subcommand history" -l group -d 'Only this group' -r
complete -c understudy -n "__fish_understudy_using_subcommand history" -l limit -d 'How many entries' -r
complete -c understudy -n "__fish_understudy_using_subcommand history" -l config -d 'Configuration file; `FILE.d/*.toml` beside it are read too' -r -F
complete -c understudy -n "__fish_understudy_using_subcommand history" -l json -d 'Print JSON, for programs'
complete -c understudy -n "__fish_understudy_using_subcommand history" -s h -l help -d 'Print help'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "run" -d 'Run the daemon. systemd does this; see `systemctl status understudy`'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "setup" -d 'Make or upgrade understudy\'s schema in the database, and its rows for the configured groups'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "check" -d 'Find out whether a failover would work: configuration, database, heartbeats, Redis, units'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "health" -d 'Show what the checks of [check.NAME] say: score, groups, and what is not green'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "status" -d 'Show who has each group, the heartbeats and what would happen next'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "explain" -d 'Say why a group would be taken over now, or why not: the daemon\'s own decision, in words'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "replay" -d 'Make the recorded decisions of this node once more, and see that they come out the same'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "baseline" -d 'Save what checks are like when all is well, and compare with it later'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "failover" -d 'Take a group over now, because its primary is known to be dead'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "switchover" -d 'Move a group to another node on purpose, with nothing lost. Paired mode only'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "beat" -d 'Write the heartbeat of an application that has none of its own'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "failback" -d 'Say that the primary\'s node has a group again, after its bots were stopped here'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "hold" -d 'Say that no understudy may take a group over, for a while or until released'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "release" -d 'End a hold'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "ack" -d 'Say that you have looked: at the alerts of a group, or at one, and at the last failovers'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "alert" -d 'Try whether alerts arrive'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "permit" -d 'Let the daemon\'s user manage the configured units, by a rule for polkit'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "protect" -d 'Bind the units of a group in paired mode to its guard, by drop-ins for systemd'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "gate" -d 'Say whether units of a group may start on this node, and exit with 0 if so. Units ask this'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "lease" -d 'Renew the lease of a group, and stop its units when that fails. systemd runs this'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "history" -d 'Show what happened: failovers with their timeline, holds, orders'
complete -c understudy -n "__fish_understudy_using_subcommand help; and not __fish_seen_subcommand_from run setup check health status explain replay baseline failover switchover beat failback hold release ack alert permit protect gate lease history help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c understudy -n "__fish_understudy_using_subcommand help; and __fish_seen_subcommand_from baseline" -f -a "save" -d 'Save what all checks of this node measured in the last span, under a name'
complete -c understudy -n "__fish_understudy_using_subcommand help; and __fish_seen_subcommand_from baseline" -f -a "compare" -d 'Compare what was measured lately with a baseline'
complete -c understudy -n "__fish_understudy_using_subcommand help; and __fish_seen_subcommand_from baseline" -f -a "list" -d 'Show what is saved'
complete -c understudy -n "__fish_understudy_using_subcommand help; and __fish_seen_subcommand_from baseline" -f -a "remove" -d 'Forget a baseline'
complete -c understudy -n "__fish_understudy_using_subcommand help; and __fish_seen_subcommand_from alert" -f -a "test" -d 'Send a test through each channel, or one, and say whether it arrived'
