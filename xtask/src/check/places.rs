//! Names that may appear in one part of the repository only.

use super::Violation;
use super::edges::PROGRAMS;
use super::lexer::words;
use super::source::Source;

const METRICS: [&str; 6] = [
    "counter!",
    "gauge!",
    "histogram!",
    "describe_counter!",
    "describe_gauge!",
    "describe_histogram!",
];

/// Each name with where it belongs.
pub(super) fn check(sources: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        for (line, code) in source.code_lines() {
            let mut broken = |message: &str| {
                violations.push(Violation::new(&source.path, line, message));
            };
            if names(code, "lapin") && !may_name_lapin(source) {
                broken(
                    "lapin is named outside transport/src/rabbitmq/; go through the traits of \
                     `transport`",
                );
            }
            if names(code, "spawn_blocking") && !source.within(&["db"]) && !source.is_beside() {
                broken("spawn_blocking outside db/; go through the pool of `db`");
            }
            if let Some(used) = beyond_its_library(source, code) {
                broken(&format!(
                    "`{used}` is named outside src/bin/: only the program may use it, and its feature \
                     can be off"
                ));
            }
            if METRICS.iter().any(|name| calls(code, name)) && !may_name_metrics(source) {
                broken("a metric is named outside telemetry.rs; add a function there and call it");
            }
        }
    }
    violations
}

/// The crate that a library names although only its program may.
fn beyond_its_library(source: &Source, code: &str) -> Option<&'static str> {
    let (_, uses) = PROGRAMS.iter().find(|(crate_name, _)| source.within(&[crate_name]))?;
    let library = source.path.contains("/src/") && !source.path.contains("/src/bin/");
    let path = |name: &str| words(code, name).any(|at| code[at + name.len()..].starts_with("::"));
    uses.iter().copied().find(|name| library && path(name))
}

fn may_name_lapin(source: &Source) -> bool {
    source.within(&["transport/src/rabbitmq", "benches", "tests"])
}

fn may_name_metrics(source: &Source) -> bool {
    source.path.ends_with("/telemetry.rs") || source.is_beside()
}

fn names(code: &str, word: &str) -> bool {
    words(code, word).next().is_some()
}

fn calls(code: &str, name: &str) -> bool {
    words(code, name.trim_end_matches('!')).any(|at| code[at..].starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::found;

    #[test]
    fn names_in_their_place_pass() {
        let samples = [
            ("transport/src/rabbitmq/lane.rs", "use lapin::Channel;"),
            ("tests/support/broker.rs", "use lapin::Channel; spawn_blocking(f);"),
            ("db/src/pool.rs", "tokio::task::spawn_blocking(f)"),
            ("relay/src/telemetry.rs", "metrics::counter!(\"a\").increment(1);"),
            ("relay/src/engine.rs", "// lapin\nlet s = \"lapin\"; let counter = 1; counter != 2;"),
            ("Cargo.toml", "lapin = \"4\""),
            ("relay/src/bin/relay/parked.rs", "use inbox::admin;"),
            ("relay/src/engine.rs", "let inbox = 1; // inbox::once"),
        ];
        assert_eq!(found(check, &samples), []);
    }

    #[test]
    fn names_elsewhere_are_found() {
        let samples = [
            ("relay/src/engine.rs", "\nuse lapin::Channel;"),
            ("transport/src/lib.rs", "tokio::task::spawn_blocking(f)"),
            ("inbox/src/once.rs", "metrics::histogram!(\"a\")"),
            ("examples/demo/src/main.rs", "lapin::connect()"),
            ("relay/src/work.rs", "inbox::once()"),
        ];
        let expected = [
            ("relay/src/engine.rs", 2),
            ("transport/src/lib.rs", 1),
            ("inbox/src/once.rs", 1),
            ("examples/demo/src/main.rs", 1),
            ("relay/src/work.rs", 1),
        ];
        assert_eq!(found(check, &samples), expected.map(|(file, line)| (file.to_owned(), line)));
    }
}
