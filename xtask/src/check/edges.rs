//! Dependencies between our crates point one way.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Violation;
use crate::{shell, workspace};

const PREFIX: &str = "counterfoil-";
/// What each crate may depend on.
const ALLOWED: [(&str, &[&str]); 8] = [
    ("message", &[]),
    ("migrations", &[]),
    ("db", &["migrations"]),
    ("outbox", &["message", "db", "migrations"]),
    ("transport", &["message"]),
    ("relay", &["outbox", "transport", "message", "db", "migrations"]),
    ("inbox", &["message", "db", "transport", "migrations"]),
    ("console", &["outbox", "inbox", "message", "db", "migrations"]),
];
/// What only the program of a crate may use, not its library: it must be optional, and `places` keeps its
/// name out of the library.
pub(super) const PROGRAMS: [(&str, &[&str]); 1] = [("relay", &["console", "inbox"])];
/// Folders of crates that may use everything.
const USERS: [&str; 4] = ["examples", "tests", "benches", "xtask"];
/// Crates that nothing may use.
const TOPMOST: [&str; 3] = ["tests", "benches", "xtask"];
/// Neither of a pair may know the other, not even in tests.
const STRANGERS: [(&str, &str); 2] = [("outbox", "inbox"), ("inbox", "outbox")];
/// What a service that only enqueues must not be made to compile.
const HEAVY: [&str; 2] = ["tokio", "lapin"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    #[serde(default)]
    optional: bool,
}

/// A dependency of one of our crates on another, names without prefix.
struct Edge<'a> {
    from: &'a str,
    to: &'a str,
    dev: bool,
    optional: bool,
    /// The crate lies in a folder whose crates may use everything.
    user: bool,
}

/// Edges that point the wrong way, and what a plain producer is made to compile.
pub(super) fn check() -> Result<Vec<Violation>> {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(workspace::root());
    let metadata: Metadata =
        serde_json::from_str(&shell::output(&mut cargo)?).context("cargo metadata")?;
    let mut violations = edges(&metadata, &|path| fs::read_to_string(path).unwrap_or_default());
    if metadata.packages.iter().any(|package| package.name == "counterfoil-outbox") {
        violations.extend(producer(&tree()?));
    }
    Ok(violations)
}

fn edges(metadata: &Metadata, read: &dyn Fn(&str) -> String) -> Vec<Violation> {
    let ours: BTreeSet<_> = metadata.packages.iter().map(|package| &package.name).collect();
    let mut violations = Vec::new();
    for package in &metadata.packages {
        let file = relative(&package.manifest_path);
        let folder = file.split('/').next().unwrap_or_default();
        let internal = package.dependencies.iter().filter(|dep| ours.contains(&dep.name));
        for dependency in internal {
            let edge = Edge {
                from: short(&package.name),
                to: short(&dependency.name),
                dev: dependency.kind.as_deref() == Some("dev"),
                optional: dependency.optional,
                user: USERS.contains(&folder),
            };
            if let Some(message) = judge(&edge) {
                let line = line_of(&read(&package.manifest_path), edge.to);
                violations.push(Violation::new(&file, line, message));
            }
        }
    }
    violations
}

/// Why an edge is wrong, if it is.
fn judge(edge: &Edge<'_>) -> Option<String> {
    let (from, to) = (edge.from, edge.to);
    if TOPMOST.contains(&to) {
        return Some(format!("`{from}` depends on `{to}`, which nothing may use; move the code"));
    }
    if STRANGERS.contains(&(from, to)) {
        return Some(format!(
            "`{from}` knows `{to}`: producer and consumer side are independent; \
             what needs both belongs into tests/"
        ));
    }
    if edge.user || edge.dev {
        return None;
    }
    let program = |(name, uses): &(&str, &[&str])| *name == from && uses.contains(&to);
    if PROGRAMS.iter().any(program) {
        return (!edge.optional).then(|| {
            format!("only the program of `{from}` may use `{to}`; make the dependency optional")
        });
    }
    match ALLOWED.iter().find(|(name, _)| *name == from) {
        None => Some(format!("`{from}` is new: add it to ALLOWED in xtask/src/check/edges.rs")),
        Some((_, allowed)) if allowed.contains(&to) => None,
        Some((_, [])) => Some(format!("`{from}` may depend on none of our crates, not on `{to}`")),
        Some((_, allowed)) => {
            let allowed = allowed.join(", ");
            Some(format!("`{from}` may not depend on `{to}`, only on {allowed}"))
        }
    }
}

fn short(package: &str) -> &str {
    package.strip_prefix(PREFIX).unwrap_or(package)
}

fn relative(manifest: &str) -> String {
    let root = workspace::root();
    let root = root.to_string_lossy();
    manifest.strip_prefix(&*root).unwrap_or(manifest).trim_start_matches('/').to_owned()
}

fn line_of(manifest: &str, dependency: &str) -> usize {
    let declares = |line: &str| {
        let key = line.trim().trim_start_matches(PREFIX);
        key.strip_prefix(dependency).is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
    };
    manifest.lines().position(declares).map_or(1, |index| index + 1)
}

fn tree() -> Result<String> {
    let mut cargo = Command::new("cargo");
    cargo.args(["tree", "--package", "counterfoil-outbox", "--no-default-features"]);
    cargo.args(["--features", "postgres", "--edges", "normal", "--prefix", "none"]);
    shell::output(cargo.current_dir(workspace::root()))
}

fn producer(tree: &str) -> Vec<Violation> {
    let compiled: BTreeSet<_> =
        tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let heavy = HEAVY.iter().filter(|name| compiled.contains(*name));
    heavy
        .map(|name| {
            let message = format!(
                "a producer with only feature `postgres` compiles `{name}`; make the dependency \
                 that brings it optional (cargo tree -p counterfoil-outbox \
                 --no-default-features --features postgres -e normal -i {name})"
            );
            Violation::new("outbox/Cargo.toml", 1, message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, name: &str, dependency: &str, kind: Option<&str>) -> Vec<Violation> {
        judged(path, name, dependency, kind, false)
    }

    fn judged(
        path: &str,
        name: &str,
        dependency: &str,
        kind: Option<&str>,
        optional: bool,
    ) -> Vec<Violation> {
        let package = |name: &str, path: &str, dependencies| Package {
            name: name.to_owned(),
            manifest_path: workspace::root().join(path).display().to_string(),
            dependencies,
        };
        let kind = kind.map(str::to_owned);
        let one = Dependency { name: dependency.to_owned(), kind, optional };
        let metadata = Metadata {
            packages: vec![
                package(name, path, vec![one]),
                package(dependency, "other/Cargo.toml", Vec::new()),
            ],
        };
        let key = short(dependency).to_owned();
        edges(&metadata, &|_| format!("[dependencies]\n{key}.workspace = true\n"))
    }

    #[test]
    fn allowed_edges_pass() {
        for (path, from, to, kind) in [
            ("outbox/Cargo.toml", "counterfoil-outbox", "counterfoil-db", None),
            ("relay/Cargo.toml", "counterfoil-relay", "counterfoil-transport", None),
            ("db/Cargo.toml", "counterfoil-db", "counterfoil-outbox", Some("dev")),
            ("tests/Cargo.toml", "counterfoil-tests", "counterfoil-inbox", None),
            ("examples/demo/Cargo.toml", "counterfoil-demo", "counterfoil-inbox", None),
        ] {
            assert_eq!(check(path, from, to, kind), [], "{from} -> {to}");
        }
    }

    #[test]
    fn edges_that_point_the_wrong_way_are_found() {
        for (path, from, to, kind) in [
            ("message/Cargo.toml", "counterfoil-message", "counterfoil-db", None),
            ("transport/Cargo.toml", "counterfoil-transport", "counterfoil-outbox", None),
            ("outbox/Cargo.toml", "counterfoil-outbox", "counterfoil-inbox", Some("dev")),
            ("relay/Cargo.toml", "counterfoil-relay", "counterfoil-tests", Some("dev")),
            ("new/Cargo.toml", "counterfoil-new", "counterfoil-message", None),
        ] {
            let found = check(path, from, to, kind);
            assert_eq!(found.len(), 1, "{from} -> {to}");
            assert_eq!((found[0].file.as_str(), found[0].line), (path, 2));
        }
    }

    #[test]
    fn what_only_a_program_uses_is_optional() {
        let inbox = |optional| {
            judged("relay/Cargo.toml", "counterfoil-relay", "counterfoil-inbox", None, optional)
        };
        assert_eq!(inbox(true), []);
        assert!(inbox(false)[0].message.contains("make the dependency optional"));
    }

    #[test]
    fn a_plain_producer_is_light() {
        assert_eq!(producer("counterfoil-outbox v0.1.0\ndiesel v2.3.14\ntokio-util v0.7\n"), []);
        assert_eq!(
            producer("counterfoil-outbox v0.1.0\ntokio v1.54.0\nlapin v4.12.3 (*)\n").len(),
            2
        );
    }
}
