//! Migrations exist for both databases under the same names, each with its way back.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::source::Source;

const BACKENDS: [&str; 2] = ["postgres", "sqlite"];
const FILES: [&str; 2] = ["up.sql", "down.sql"];

/// Migrations that lack a file or a twin.
pub(super) fn check(sources: &[Source]) -> Vec<Violation> {
    let mut found: BTreeMap<&str, BTreeSet<(&str, &str)>> = BTreeMap::new();
    for source in sources {
        let parts: Vec<_> = source.path.split('/').collect();
        if let ["migrations", backend, slug, file] = parts[..]
            && BACKENDS.contains(&backend)
        {
            found.entry(slug).or_default().insert((backend, file));
        }
    }
    let mut violations = Vec::new();
    for (slug, files) in found {
        for backend in BACKENDS {
            for file in FILES.into_iter().filter(|file| !files.contains(&(backend, *file))) {
                let path = format!("migrations/{backend}/{slug}/{file}");
                let message = format!("migration `{slug}` lacks this file; write it");
                violations.push(Violation::new(&path, 1, message));
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::found;

    #[test]
    fn complete_twins_pass() {
        let samples = [
            ("migrations/postgres/1_a/up.sql", ""),
            ("migrations/postgres/1_a/down.sql", ""),
            ("migrations/sqlite/1_a/up.sql", ""),
            ("migrations/sqlite/1_a/down.sql", ""),
            ("migrations/src/lib.rs", ""),
        ];
        assert_eq!(found(check, &samples), []);
    }

    #[test]
    fn every_missing_file_is_named() {
        let samples = [
            ("migrations/postgres/1_a/up.sql", ""),
            ("migrations/postgres/1_a/down.sql", ""),
            ("migrations/sqlite/1_a/up.sql", ""),
        ];
        assert_eq!(found(check, &samples), [("migrations/sqlite/1_a/down.sql".to_owned(), 1)]);
    }
}
