//! Removing what a killed xtask left behind.

use std::fs;
use std::path::{Path, PathBuf};

use super::process;
use super::record::Record;
use super::stop::stop;
use crate::workspace;

/// Stops every set of services whose owner is dead.
pub(crate) fn sweep() {
    for dir in sets(&workspace::services()) {
        let Some(verdict) = judge(&dir) else { continue };
        eprintln!("sweeping {}, left by an earlier run", dir.display());
        match verdict {
            Leftover::Recorded(record) => stop(&record),
            Leftover::Empty => {
                let _ = fs::remove_dir_all(&dir);
            }
        }
    }
}

enum Leftover {
    /// It may have processes.
    Recorded(Box<Record>),
    /// Its owner died before it started anything.
    Empty,
}

fn sets(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn judge(dir: &Path) -> Option<Leftover> {
    match Record::load(dir) {
        Ok(record) => match &record.owner {
            Some(owner) if owner.alive() => None,
            Some(_) => Some(Leftover::Recorded(Box::new(record))),
            None => (!running(&record)).then(|| Leftover::Recorded(Box::new(record))),
        },
        Err(_) => {
            // No record yet: the name begins with the process number of its owner.
            let owner = dir.file_name()?.to_str()?.split('-').next()?.parse().ok()?;
            (!process::exists(owner)).then_some(Leftover::Empty)
        }
    }
}

/// Whether a detached set still has a live process; after a reboot it has none.
pub(crate) fn running(record: &Record) -> bool {
    let postgres = record.postgres.as_ref().and_then(|server| server.private.as_ref());
    let rabbitmq = record.rabbitmq.as_ref().and_then(|broker| broker.private.as_ref());
    let processes = [
        postgres.and_then(|server| server.process.as_ref()),
        rabbitmq.and_then(|broker| broker.process.as_ref()),
    ];
    record.compose.is_some() || processes.into_iter().flatten().any(process::Process::alive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::process::Process;

    /// A folder that goes with its test.
    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    impl std::ops::Deref for Folder {
        type Target = Path;

        fn deref(&self) -> &Path {
            &self.0
        }
    }

    fn folder(name: &str) -> Folder {
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        Folder(dir)
    }

    fn own(test: &str) -> Folder {
        folder(&format!("xtask-sweep-{}-{test}", std::process::id()))
    }

    fn save(dir: &Path, owner: Option<Process>) {
        let record = Record {
            run: "test".to_owned(),
            dir: dir.to_owned(),
            owner,
            durable: false,
            postgres: None,
            rabbitmq: None,
            compose: None,
        };
        record.save().unwrap();
    }

    fn dead() -> u32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    #[test]
    fn a_set_of_a_live_owner_is_left_alone() {
        let dir = own("live");
        save(&dir, Some(Process::of(std::process::id())));
        assert!(judge(&dir).is_none());
    }

    #[test]
    fn a_set_of_a_dead_owner_is_swept() {
        let dir = own("dead");
        save(&dir, Some(Process { pid: dead(), started: Some(1) }));
        assert!(matches!(judge(&dir), Some(Leftover::Recorded(_))));
    }

    #[test]
    fn a_folder_without_record_is_judged_by_its_name() {
        let own = folder(&format!("{}-xtask-sweep", std::process::id()));
        assert!(judge(&own).is_none());
        let other = folder(&format!("{}-xtask-sweep", dead()));
        assert!(matches!(judge(&other), Some(Leftover::Empty)));
    }

    #[test]
    fn a_detached_set_without_processes_is_swept() {
        let dir = own("detached");
        save(&dir, None);
        assert!(matches!(judge(&dir), Some(Leftover::Recorded(_))));
    }
}
