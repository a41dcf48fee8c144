//! Where the workspace and its build directory are.

use std::env;
use std::path::{Path, PathBuf};

/// Root folder of the workspace.
pub(crate) fn root() -> PathBuf {
    // Set by `cargo run`; the compiled-in folder serves a binary started by hand.
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf)
}

/// Build directory; `CARGO_TARGET_DIR` overrides it as it does for cargo.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => root().join(dir),
        _ => root().join("target"),
    }
}

/// Folder that holds one sub-folder per set of running services.
pub(crate) fn services() -> PathBuf {
    target().join("services")
}
