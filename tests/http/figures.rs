//! What a policy exports: all that is documented, from the start.

use std::collections::BTreeSet;

use diesel::SqliteConnection;
use inbox::http::telemetry::REQUESTS;
use inbox::http::{Idempotency, RequestEnding};
use support::http::policy;
use support::inbox::Store;
use support::recorded::Recorded;

const DOCUMENT: &str = include_str!("../../docs/metrics.md");

/// The section on requests.
fn section() -> &'static str {
    let (_, section) = DOCUMENT.split_once("\n## HTTP\n").expect("a section of its own");
    section.split("\n## ").next().expect("ends")
}

/// Every text between backquotes in the first cell of a row.
fn named(row: &str) -> Vec<String> {
    let cell = row.split('|').nth(1).unwrap_or_default();
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_series_and_every_ending_is_documented_and_there_from_the_start() {
    let recorded = Recorded::install();
    let database = SqliteConnection::database();
    let policy = policy();
    let name = policy.name.clone();
    let front = Idempotency::new(policy, SqliteConnection::pool(&database)).expect("a good policy");
    let rows = || {
        let rows = section().lines().filter(|line| line.starts_with("| `"));
        rows.filter(|row| !row.starts_with("| `ending` | Meaning"))
    };
    let series = recorded.series("counterfoil_http_");
    let of_policy = format!("policy={name}");
    let exported: BTreeSet<String> = series
        .iter()
        .filter(|series| series.contains(&of_policy))
        .filter_map(|series| series.split(' ').next().map(str::to_owned))
        .collect();
    let documented: BTreeSet<String> =
        rows().filter(|row| row.contains("counterfoil_http_")).flat_map(named).collect();
    assert_eq!(exported, documented);

    let endings: BTreeSet<String> =
        rows().filter(|row| !row.contains("counterfoil_http_")).flat_map(named).collect();
    let all: BTreeSet<String> =
        RequestEnding::ALL.iter().map(|ending| ending.as_str().to_owned()).collect();
    assert_eq!(endings, all);
    for ending in RequestEnding::ALL {
        let one = format!("{REQUESTS} {of_policy},ending={ending}");
        assert_eq!(recorded.counter(&one), Some(0), "{one}");
    }
    drop(front);
}
