//! docs/failover.md and the code say the same. `UPDATE_EXPECT=1` rewrites the table.

use std::fmt::Write as _;
use std::fs;

use understudy::engine::edge::{EDGES, Kind};

const PATH: &str = "docs/failover.md";
const OPEN: &str = "<!-- edges -->\n";
const CLOSE: &str = "<!-- /edges -->";

#[test]
fn the_table_of_edges_in_the_manual_is_the_table_of_the_code() {
    let text = fs::read_to_string(PATH).expect("the manual can be read");
    let (before, rest) = text.split_once(OPEN).expect("the table begins");
    let (table, after) = rest.split_once(CLOSE).expect("the table ends");
    let expected = rendered();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let text = format!("{before}{OPEN}{expected}{CLOSE}{after}");
        fs::write(PATH, text).expect("the manual can be written");
        return;
    }
    assert_eq!(table, expected, "{PATH} is behind; UPDATE_EXPECT=1 rewrites it");
}

#[test]
fn every_state_has_its_heading_in_the_manual() {
    let text = fs::read_to_string(PATH).expect("the manual can be read");
    let missing: Vec<_> =
        Kind::ALL.iter().filter(|kind| !text.contains(&format!("\n### {kind}\n"))).collect();
    assert!(missing.is_empty(), "no heading for {missing:?}");
}

fn rendered() -> String {
    let mut edges = EDGES;
    edges.sort();
    let mut table = "| from | to | because |\n|---|---|---|\n".to_owned();
    for edge in edges {
        let _ = writeln!(table, "| {} | {} | {} |", edge.from, edge.to, edge.why.text());
    }
    table
}
