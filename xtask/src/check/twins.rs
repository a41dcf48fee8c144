//! The stores of the two databases are twins: the same public functions in the same order.

use super::Violation;
use super::lexer::{is_word, words};
use super::source::Source;

/// Stores that differ from their twin.
pub(super) fn check(sources: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        let Some(twin) = twin(&source.path) else { continue };
        let Some(other) = sources.iter().find(|source| source.path == twin) else {
            let message =
                format!("its twin {twin} is missing; write it, or keep the file out of store/");
            violations.push(Violation::new(&source.path, 1, message));
            continue;
        };
        // Each pair is compared once.
        if source.path.contains("/store/postgres") {
            violations.extend(compare(source, other));
        }
    }
    violations
}

/// The file that must declare the same functions, for a file of a store.
fn twin(path: &str) -> Option<String> {
    let (store, file) = path.split_once("/src/store/")?;
    let swap = |from: &str, to: &str| {
        let rest = file.strip_prefix(from)?;
        let own = rest == ".rs" || rest.starts_with('/');
        own.then(|| format!("{store}/src/store/{to}{rest}"))
    };
    swap("postgres", "sqlite").or_else(|| swap("sqlite", "postgres"))
}

fn compare(one: &Source, other: &Source) -> Option<Violation> {
    let (ours, theirs) = (functions(one), functions(other));
    let same = ours.iter().zip(&theirs).take_while(|((_, a), (_, b))| a == b).count();
    let (place, message) = match (ours.get(same), theirs.get(same)) {
        (None, None) => return None,
        (Some((line, name)), Some((_, twin))) => {
            ((one, *line), format!("`{name}` stands where {} has `{twin}`", other.path))
        }
        (Some((line, name)), None) => {
            ((one, *line), format!("`{name}` has no counterpart in {}", other.path))
        }
        (None, Some((line, name))) => {
            ((other, *line), format!("`{name}` has no counterpart in {}", one.path))
        }
    };
    let message = format!("{message}; declare the same functions in the same order");
    Some(Violation::new(&place.0.path, place.1, message))
}

/// Public functions with their lines, up to the unit tests.
fn functions(source: &Source) -> Vec<(usize, String)> {
    let code = source.code_lines().take_while(|(_, line)| line.trim() != "#[cfg(test)]");
    code.filter_map(|(number, line)| Some((number, function(line)?))).collect()
}

fn function(line: &str) -> Option<String> {
    let line = line.trim_start();
    let rest = line.strip_prefix("pub")?;
    if rest.starts_with(is_word) {
        return None;
    }
    let name = &rest[words(rest, "fn").next()? + 2..];
    Some(name.trim_start().chars().take_while(|c| is_word(*c)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::found;

    const POSTGRES: &str = "outbox/src/store/postgres.rs";
    const SQLITE: &str = "outbox/src/store/sqlite.rs";

    #[test]
    fn twins_pass() {
        let samples = [
            (POSTGRES, "pub(crate) fn insert(\n) {}\nfn helper() {}\npub fn read() {}"),
            (
                SQLITE,
                "pub(crate) fn insert() {}\npub async fn read() {}\n#[cfg(test)]\npub fn x() {}",
            ),
            ("inbox/src/store/postgres/once.rs", "pub fn claim() {}"),
            ("inbox/src/store/sqlite/once.rs", "pub fn claim() {}"),
            ("inbox/src/store/mod.rs", "pub fn anything() {}"),
        ];
        assert_eq!(found(check, &samples), []);
    }

    #[test]
    fn another_order_is_found() {
        let samples = [
            (POSTGRES, "pub fn insert() {}\npub fn read() {}"),
            (SQLITE, "pub fn read() {}\npub fn insert() {}"),
        ];
        assert_eq!(found(check, &samples), [(POSTGRES.to_owned(), 1)]);
    }

    #[test]
    fn a_function_of_one_twin_only_is_found() {
        let samples = [(POSTGRES, "pub fn a() {}"), (SQLITE, "pub fn a() {}\npub fn b() {}")];
        assert_eq!(found(check, &samples), [(SQLITE.to_owned(), 2)]);
    }

    #[test]
    fn a_missing_twin_is_found() {
        let path = "inbox/src/store/sqlite/once.rs";
        assert_eq!(found(check, &[(path, "pub fn a() {}")]), [(path.to_owned(), 1)]);
    }
}
