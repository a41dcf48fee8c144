//! `cargo xtask bench`: one measurement against private, durable services.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};

use crate::services::install::{self, Need};
use crate::services::{Durability, Services};
use crate::signals::Signals;
use crate::{shell, workspace};

/// Runs the measurement `name`, with its figures as JSON in `json` if given.
pub(crate) fn run(
    name: &str,
    json: Option<PathBuf>,
    args: &[String],
    signals: &Signals,
) -> Result<ExitStatus> {
    let known = names(&workspace::root().join("benches/src/bin"))?;
    if !known.iter().any(|known| known == name) {
        bail!("there is no measurement `{name}`; there are:\n  {}", known.join("\n  "));
    }
    install::ensure(&[Need::Libpq], signals)?;
    // Built first, so that the services have the machine to themselves afterwards. The relay with it,
    // in one build and beside it: some measurements start the program, and two builds would settle on
    // different features and compile everything twice.
    let program = format!("{PREFIX}{name}");
    let mut build = cargo("build");
    build.args(["--release", "--package", "counterfoil-benches", "--bin", &program]);
    build.args(["--package", "counterfoil-relay", "--bin", "relay"]);
    shell::succeed(&mut build, signals)?;
    let services = Services::start(Durability::Durable, signals)?;
    let mut bench = Command::new(workspace::target().join("release").join(&program));
    bench.current_dir(workspace::root());
    if let Some(json) = json {
        // The measurement runs in the root of the workspace; the caller may stand elsewhere.
        bench.arg("--json").arg(std::path::absolute(json)?);
    }
    services.lend(bench.args(args));
    shell::run(&mut bench, signals)
}

fn cargo(command: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.arg(command).current_dir(workspace::root());
    cargo
}

/// What the programs' names begin with: without it the measurement of the relay and the relay itself
/// would be the same file under `target`.
const PREFIX: &str = "bench_";

/// Measurements in a folder: `bench_name.rs`, or `bench_name/main.rs`.
fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir)
        .with_context(|| format!("there are no measurements in {}", dir.display()))?;
    let program = |path: PathBuf| {
        let whole = path.extension().is_some_and(|extension| extension == "rs")
            || path.join("main.rs").is_file();
        let stem = path.file_stem()?.to_string_lossy().into_owned();
        whole.then(|| stem.strip_prefix(PREFIX).map(str::to_owned))?
    };
    let mut names: Vec<_> = entries.flatten().filter_map(|entry| program(entry.path())).collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_files_or_folders_with_a_main() {
        let dir = std::env::temp_dir().join(format!("xtask-bench-{}", std::process::id()));
        fs::create_dir_all(dir.join("bench_path")).unwrap();
        fs::create_dir_all(dir.join("notes")).unwrap();
        for file in ["bench_drain.rs", "bench_path/main.rs", "other.rs", "bench_notes.md"] {
            fs::write(dir.join(file), "").unwrap();
        }
        let found = names(&dir);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found.unwrap(), ["drain", "path"]);
    }
}
