//! The files of the repository, read once for all rules.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::lexer::{self, Literal};
use crate::shell;

/// A text file that git tracks or would track.
pub(crate) struct Source {
    /// Path from the root of the repository, with `/`.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
    /// Rust files: the text without comments and the contents of strings.
    pub(crate) code: String,
    /// Rust files: the string literals.
    pub(crate) literals: Vec<Literal>,
}

impl Source {
    /// A file with its text.
    pub(crate) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let (code, literals) =
            if path.ends_with(".rs") { lexer::split(&text) } else { Default::default() };
        Self { path, text, code, literals }
    }

    /// Whether the file is Rust.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Lines of code with their numbers.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Whether the file lies in one of these top-level folders.
    pub(crate) fn within(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(&format!("{folder}/")))
    }

    /// Whether the file serves tests, measurements or teaching and ships with no crate.
    pub(crate) fn is_beside(&self) -> bool {
        self.within(&["tests", "benches", "examples", "docs", "xtask"])
            || self.path.contains("/tests/")
    }
}

/// Reads every text file that git tracks or would track.
pub(crate) fn read(root: &Path) -> Result<Vec<Source>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-co", "--exclude-standard", "-z"]).current_dir(root);
    let listing = shell::output(&mut git)?;
    let mut paths: Vec<_> = listing.split('\0').filter(|path| !path.is_empty()).collect();
    paths.sort_unstable();
    paths.dedup();
    // What cannot be read as text is a picture, or was deleted and not yet committed.
    let read = |path: &&str| fs::read_to_string(root.join(path)).ok();
    Ok(paths.iter().filter_map(|path| Some(Source::new(*path, read(path)?))).collect())
}
