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
    // Built first, so that the services have the machine to themselves afterwards.
    let selection = ["--release", "--package", "counterfoil-benches", "--bin", name];
    shell::succeed(cargo("build").args(selection), signals)?;
    let services = Services::start(Durability::Durable, signals)?;
    let mut bench = cargo("run");
    bench.args(selection).arg("--");
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

/// Programs in a folder: `name.rs`, or `name/main.rs`.
fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir)
        .with_context(|| format!("there are no measurements in {}", dir.display()))?;
    let program = |path: PathBuf| {
        let whole = path.extension().is_some_and(|extension| extension == "rs")
            || path.join("main.rs").is_file();
        whole.then(|| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()))?
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
        fs::create_dir_all(dir.join("path")).unwrap();
        fs::create_dir_all(dir.join("notes")).unwrap();
        for file in ["drain.rs", "path/main.rs", "readme.md"] {
            fs::write(dir.join(file), "").unwrap();
        }
        let found = names(&dir);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found.unwrap(), ["drain", "path"]);
    }
}
