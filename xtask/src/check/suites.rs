//! A test file that its suite's main.rs does not list is never compiled, and so never fails.

use super::Violation;
use super::source::Source;

/// Files of a suite under tests/ that its main.rs does not list.
pub(super) fn check(sources: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        let Some((suite, module)) = module(&source.path) else { continue };
        let main = format!("tests/{suite}/main.rs");
        let Some(main) = sources.iter().find(|source| source.path == main) else { continue };
        if !main.code_lines().any(|(_, line)| declares(line, module)) {
            let message = format!("{} does not list this file; add `mod {module};`", main.path);
            violations.push(Violation::new(&source.path, 1, message));
        }
    }
    violations
}

/// Suite and module of a file.
fn module(path: &str) -> Option<(&str, &str)> {
    let parts: Vec<_> = path.split('/').collect();
    match parts[..] {
        ["tests", _, "main.rs"] => None,
        ["tests", suite, file] => Some((suite, file.strip_suffix(".rs")?)),
        ["tests", suite, module, "mod.rs"] => Some((suite, module)),
        _ => None,
    }
}

fn declares(line: &str, module: &str) -> bool {
    line.trim().strip_suffix(';').is_some_and(|item| {
        let mut words = item.split_whitespace().rev();
        words.next() == Some(module) && words.next() == Some("mod")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::found;

    #[test]
    fn listed_files_pass() {
        let samples = [
            ("tests/faults/main.rs", "mod broker;\n#[cfg(x)]\npub(crate) mod cut;"),
            ("tests/faults/broker.rs", ""),
            ("tests/faults/cut/mod.rs", ""),
            ("tests/support/lib.rs", ""),
            ("relay/tests/once.rs", ""),
        ];
        assert_eq!(found(check, &samples), []);
    }

    #[test]
    fn an_orphan_is_found() {
        let samples = [
            ("tests/faults/main.rs", "// mod broker;\nmod broker_dies;"),
            ("tests/faults/broker.rs", ""),
            ("tests/faults/broker_dies.rs", ""),
        ];
        assert_eq!(found(check, &samples), [("tests/faults/broker.rs".to_owned(), 1)]);
    }
}
