//! Every table has one owning crate, which holds every statement on it under `src/store/`.

use std::collections::BTreeSet;

use super::Violation;
use super::lexer::{is_word, words};
use super::source::Source;

const OWNERS: [(&str, &str); 2] = [("outbox_", "outbox"), ("inbox_", "inbox")];
/// Words after which a name is a table's and not part of a sentence.
const BEFORE: [&str; 7] = ["FROM", "INTO", "UPDATE", "JOIN", "ONLY", "REFERENCES", "TRUNCATE"];
/// The same before `TABLE` and `VIEW`, which are words of messages too.
const COMMANDS: [&str; 6] = ["CREATE", "ALTER", "DROP", "LOCK", "TRUNCATE", "EXISTS"];

/// Statements on a table outside its owner.
pub(super) fn check(sources: &[Source]) -> Vec<Violation> {
    let relations = relations(sources);
    let mut violations = Vec::new();
    for source in sources.iter().filter(|source| !exempt(source)) {
        for relation in &relations {
            let Some(owner) = owner(relation) else { continue };
            if source.path.starts_with(&format!("{owner}/src/store/")) {
                continue;
            }
            for line in uses(source, relation) {
                let message = format!(
                    "`{relation}` is used outside its owner; put the statement into both \
                     {owner}/src/store/postgres.rs and sqlite.rs and call it"
                );
                violations.push(Violation::new(&source.path, line, message));
            }
        }
    }
    violations
}

fn exempt(source: &Source) -> bool {
    // Metrics are named after what they count.
    source.is_beside() || source.within(&["migrations"]) || source.path.ends_with("/telemetry.rs")
}

fn owner(relation: &str) -> Option<&'static str> {
    OWNERS.iter().find(|(prefix, _)| relation.starts_with(prefix)).map(|(_, owner)| *owner)
}

/// Tables, views and functions that the migrations create.
fn relations(sources: &[Source]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for source in sources.iter().filter(|source| source.within(&["migrations"])) {
        if !source.path.ends_with("/up.sql") {
            continue;
        }
        let mut words = source.text.split(|c| !is_word(c)).filter(|word| !word.is_empty());
        while let Some(word) = words.next() {
            if !["TABLE", "VIEW", "FUNCTION"].contains(&word.to_uppercase().as_str()) {
                continue;
            }
            let noise = |word: &&str| !["IF", "NOT", "EXISTS"].contains(&&*word.to_uppercase());
            found.extend(words.find(noise).filter(|name| owner(name).is_some()).map(str::to_owned));
        }
    }
    found
}

/// Lines on which a file uses a relation.
fn uses(source: &Source, relation: &str) -> Vec<usize> {
    let mut lines: BTreeSet<usize> = BTreeSet::new();
    if source.path.ends_with(".sql") {
        lines.extend(words(&source.text, relation).map(|at| line_of(&source.text, at, 1)));
    }
    let mentions = source.code_lines().filter(|(_, code)| words(code, relation).next().is_some());
    lines.extend(mentions.map(|(line, _)| line));
    for literal in &source.literals {
        let text = &literal.text;
        let statements = words(text, relation).filter(|at| is_statement(text, *at, relation));
        lines.extend(statements.map(|at| line_of(text, at, literal.line)));
    }
    lines.into_iter().collect()
}

/// Messages may name a table; only a statement, or the bare name for building one, counts.
fn is_statement(text: &str, at: usize, relation: &str) -> bool {
    let after = text[at + relation.len()..].trim_start();
    let before = text[..at].trim_end_matches(|c: char| c.is_whitespace() || "\\\"".contains(c));
    let mut backwards = before.rsplit(|c| !is_word(c)).filter(|word| !word.is_empty());
    let word = backwards.next().unwrap_or_default().to_uppercase();
    let command = backwards.next().unwrap_or_default().to_uppercase();
    text == relation
        || after.starts_with('(')
        || BEFORE.contains(&&*word)
        || (matches!(&*word, "TABLE" | "VIEW") && COMMANDS.contains(&&*command))
}

fn line_of(text: &str, at: usize, first: usize) -> usize {
    first + text[..at].matches('\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::found;

    const UP: (&str, &str) = (
        "migrations/postgres/1_outbox/up.sql",
        "CREATE TABLE outbox_messages (id int);\nCREATE TABLE IF NOT EXISTS inbox_parked (id int);",
    );

    #[test]
    fn statements_of_the_owner_pass() {
        let samples = [
            UP,
            ("outbox/src/store/postgres.rs", "sql(\"SELECT 1 FROM outbox_messages\")"),
            ("inbox/src/store/sqlite.rs", "table! { inbox_parked (id) { id -> Integer, } }"),
            (
                "relay/src/error.rs",
                "/// reads outbox_messages\nlet m = \"outbox_messages is old\";",
            ),
            ("outbox/src/telemetry.rs", "gauge(\"outbox_messages\")"),
            ("tests/path/main.rs", "sql(\"SELECT 1 FROM outbox_messages\")"),
            ("inbox/tests/once.rs", "sql(\"SELECT 1 FROM inbox_parked\")"),
        ];
        assert_eq!(found(check, &samples), []);
    }

    #[test]
    fn statements_elsewhere_are_found() {
        let samples = [
            UP,
            ("relay/src/engine.rs", "sql(\"SELECT 1\n  FROM \n outbox_messages\")"),
            ("outbox/src/enqueue.rs", "outbox_messages::table.load(c)"),
            ("outbox/src/store/postgres.rs", "sql(\"DELETE FROM inbox_parked\")"),
            ("inbox/src/lib.rs", "const TABLE: &str = \"inbox_parked\";"),
            ("relay/src/rebase.rs", "sql(\"LOCK TABLE outbox_messages\")"),
            ("deploy/report.sql", "select * from outbox_messages"),
        ];
        let expected = [
            ("relay/src/engine.rs", 3),
            ("outbox/src/enqueue.rs", 1),
            ("outbox/src/store/postgres.rs", 1),
            ("inbox/src/lib.rs", 1),
            ("relay/src/rebase.rs", 1),
            ("deploy/report.sql", 1),
        ];
        assert_eq!(found(check, &samples), expected.map(|(file, line)| (file.to_owned(), line)));
    }
}
