//! Ending a set of services and removing what it leaves.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::compose;
use super::process::{self, Process};
use super::record::Record;

/// How long a server may take for an orderly end; its data is thrown away in any case.
const PATIENCE: Duration = Duration::from_secs(5);

/// Stops every service of the set and removes its folders. What is already gone is no error.
pub(crate) fn stop(record: &Record) {
    if let Some(broker) = record.rabbitmq.as_ref().and_then(|broker| broker.private.as_ref()) {
        let restarted = process::with_variable("RABBITMQ_PID_FILE", &broker.pid_file);
        // Killed, not asked: an orderly end takes seconds and saves data nobody wants.
        end([&broker.process, &broker.epmd], restarted, Signal::SIGKILL);
    }
    if let Some(server) = record.postgres.as_ref().and_then(|server| server.private.as_ref()) {
        let restarted = process::with_argument("postgres", &server.data_dir);
        // SIGQUIT is its immediate shutdown: unlike SIGKILL it releases shared memory.
        end([&server.process], restarted, Signal::SIGQUIT);
        remove(&server.socket_dir);
        remove(&server.home);
    }
    if let Some(project) = &record.compose {
        compose::down(project);
    }
    remove(&record.dir);
}

fn end<const N: usize>(ours: [&Option<Process>; N], restarted: Vec<Process>, signal: Signal) {
    for process in ours.into_iter().flatten().chain(&restarted) {
        process.stop(signal, PATIENCE);
    }
}

fn remove(dir: &Path) {
    // A dying server may still write a last file while its folder is being emptied.
    for _ in 0..3 {
        match fs::remove_dir_all(dir) {
            Ok(()) => return,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
    eprintln!("cannot remove {}; remove it by hand", dir.display());
}
