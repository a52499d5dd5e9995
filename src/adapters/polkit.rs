//! The rule by which polkit lets the daemon, which is not root, manage just the units that it was
//! given.

use std::fmt::Write as _;

/// Where polkitd looks for rules that are this host's own.
pub const RULE_PATH: &str = "/etc/polkit-1/rules.d/50-understudy.rules";

/// The user that the packaged service runs as.
pub const USER: &str = "understudy";

/// What the daemon does to a unit, in the words that systemd asks polkit with. `ref` keeps what the
/// last run of a unit left behind until it was read.
const VERBS: [&str; 5] = ["start", "stop", "kill", "reset-failed", "ref"];

/// The rule that lets a user manage these units, and says nothing about any other case.
///
/// It is a program in JavaScript. All names are in it as strings of JSON, which are strings of
/// JavaScript too, so that no name can be anything else.
#[must_use]
pub fn rule(user: &str, units: &[String]) -> String {
    let mut units = units.to_vec();
    units.sort();
    units.dedup();
    let mut list = String::new();
    for unit in &units {
        let _ = writeln!(list, "        {},", quoted(unit));
    }
    let user = quoted(user);
    let verbs = VERBS.map(quoted).join(", ");
    format!(
        "// Lets understudy manage the units of its configuration, and nothing else.\n\
         // Made by `understudy permit` at each start and reload of understudy.service: do not edit.\n\
         polkit.addRule(function (action, subject) {{\n    \
             var verbs = [{verbs}];\n    \
             var units = [\n{list}    ];\n    \
             if (action.id == \"org.freedesktop.systemd1.manage-units\" &&\n        \
                 subject.user == {user} &&\n        \
                 verbs.indexOf(action.lookup(\"verb\")) >= 0 &&\n        \
                 units.indexOf(action.lookup(\"unit\")) >= 0) {{\n        \
                 return polkit.Result.YES;\n    \
             }}\n    \
             return polkit.Result.NOT_HANDLED;\n\
         }});\n"
    )
}

/// Whether a rule that [`rule`] made names a unit.
#[must_use]
pub fn allows(rule: &str, unit: &str) -> bool {
    let entry = format!("{},", quoted(unit));
    rule.lines().any(|line| line.trim() == entry)
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::{allows, rule};

    #[test]
    fn a_rule_names_each_unit_once_and_in_order() {
        let units = ["b.service", "a.service", "b.service"].map(str::to_owned);
        let rule = rule("understudy", &units);
        let list = "    var units = [\n        \"a.service\",\n        \"b.service\",\n    ];\n";
        assert!(rule.contains(list), "{rule}");
        assert!(rule.contains("subject.user == \"understudy\""), "{rule}");
        assert!(allows(&rule, "a.service") && !allows(&rule, "service"));
        assert!(!allows("", "a.service"));
    }

    #[test]
    fn no_name_gets_out_of_its_string() {
        let rule = rule("x\"); y(\"", &["a\\x2db@\"1\".service".to_owned()]);
        assert!(rule.contains(r#"subject.user == "x\"); y(\"""#), "{rule}");
        assert!(rule.contains(r#""a\\x2db@\"1\".service""#), "{rule}");
    }
}
