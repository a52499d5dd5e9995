//! What the daemon says of its decisions, now and afterwards.

use std::fs;

use crate::support::daemon::Scene;

#[test]
fn a_takeover_is_explained_and_decided_once_more_from_its_recording() {
    let scene = Scene::new();
    let mut standby = scene.standby().watching();
    let said = standby.run(&["explain"]);
    said.assert_code(0).assert_says("would not fail over: heartbeat of ");
    said.assert_says("changed").assert_says("no   equity is silent: unchanged for");
    said.assert_says("yes  this node could run the group: checked");
    standby.run(&["hold", "--reason", "upgrade"]).assert_code(0);
    standby.wait_for("the hold to be seen", |group| group.hold.is_some());
    standby.run(&["explain"]).assert_says("no   nobody said not to act: held by");
    let held = standby.run(&["explain", "--json"]).json();
    assert_eq!(held["would_act"], false);
    standby.run(&["release"]).assert_code(0);
    standby.wait_for("the release to be seen", |group| group.hold.is_none());

    scene.silence(&standby);
    standby.wait_until_active();
    standby.run(&["explain"]).assert_says("would not fail over: this node has the group (epoch 1)");
    // The recording goes on over a crash, with the engine as it begins again.
    standby.kill9();
    let said = standby.run(&["replay"]);
    said.assert_code(0).assert_says("all with the same outcome");
    for words in [
        "ask for the lease (automatic)",
        "the lease was granted with epoch 1",
        "remember that promote begins",
        "promote is done",
        "promoting → active: every bot beats; the takeover is complete",
    ] {
        said.assert_says(words);
    }
    let reads = |text: &str| text.matches("read: alpha has epoch 0; ").count();
    let all = standby.run(&["replay", "--all"]);
    assert!(reads(&all.out) > reads(&said.out), "what led to nothing is left out:\n{}", said.out);
    standby.start();
    standby.wait_until_active();
    standby.run(&["replay"]).assert_code(0).assert_says("adopting what runs");
}

#[test]
fn a_recording_tells_why_nothing_was_done_at_a_time_of_the_past() {
    let scene = Scene::new();
    let mut standby = scene.standby().watching();
    standby.terminate();
    let recording = standby.path("state/record.jsonl");
    let file = recording.to_str().unwrap();
    standby.run(&["explain", "--recorded", file]).assert_code(0).assert_says("would not fail over");
    standby
        .run(&["explain", "--recorded", file, "--at", "2020-01-01T00:00:00Z"])
        .assert_code(1)
        .assert_says("the recording has nothing of that group until then; it has: ");

    // A crash in the middle of a line costs that line, and a decision that the code does not make is
    // told.
    let text = fs::read_to_string(&recording).unwrap();
    fs::write(&recording, format!("{text}{{\"wall\":\"2026-")).unwrap();
    standby.run(&["replay"]).assert_code(0).assert_says("1 lines were left out");
    let changed = text.replacen("\"actions\":[]", "\"actions\":[\"start a second copy\"]", 1);
    assert_ne!(changed, text);
    fs::write(&recording, changed).unwrap();
    let said = standby.run(&["replay"]);
    said.assert_code(1).assert_says("1 with another outcome").assert_says("start a second copy");
    fs::write(&recording, "garbage\n").unwrap();
    standby.run(&["replay"]).assert_code(1).assert_says("no recorded line that can be read");
    fs::remove_file(&recording).unwrap();
    standby.run(&["replay"]).assert_code(1).assert_says("nothing was recorded here yet");
}
