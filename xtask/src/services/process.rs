//! Processes named by number and start time, so that a reused number is never taken for ours.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process as it was when we recorded it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Process number.
    pub(crate) pid: u32,
    /// Start time in clock ticks since boot where the system tells it.
    pub(crate) started: Option<u64>,
}

impl Process {
    /// Records a process by its number.
    pub(crate) fn of(pid: u32) -> Self {
        Self { pid, started: started(pid) }
    }

    /// Whether that very process still runs.
    pub(crate) fn alive(&self) -> bool {
        exists(self.pid) && started(self.pid) == self.started
    }

    /// Sends `first` to it and waits; past the deadline it and its group are killed.
    pub(crate) fn stop(&self, first: Signal, patience: Duration) {
        if !self.alive() {
            return;
        }
        signal(self.pid, first);
        // A fault test may have frozen it: a stopped process acts on nothing but SIGKILL.
        signal(self.pid, Signal::SIGCONT);
        if self.gone_within(patience) {
            return;
        }
        signal_group(self.pid, Signal::SIGKILL);
        signal(self.pid, Signal::SIGKILL);
        self.gone_within(patience);
    }

    fn gone_within(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.alive() {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(Duration::from_millis(20));
        }
        true
    }
}

/// Processes whose environment has this variable with this value, where the system tells it:
/// among them those that a test restarted behind our back.
pub(crate) fn with_variable(name: &str, value: &Path) -> Vec<Process> {
    let wanted = [name.as_bytes(), b"=", value.as_os_str().as_encoded_bytes()].concat();
    matching("environ", |words| words.contains(&wanted.as_slice()))
}

/// Processes of this program with this argument, where the system tells it.
pub(crate) fn with_argument(program: &str, argument: &Path) -> Vec<Process> {
    let argument = argument.as_os_str().as_encoded_bytes();
    matching("cmdline", |words| {
        let called = words.first().and_then(|word| word.rsplit(|byte| *byte == b'/').next());
        called == Some(program.as_bytes()) && words.contains(&argument)
    })
}

fn matching(file: &str, wanted: impl Fn(&[&[u8]]) -> bool) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let matches = |pid: &u32| {
        fs::read(format!("/proc/{pid}/{file}"))
            .is_ok_and(|bytes| wanted(&bytes.split(|byte| *byte == 0).collect::<Vec<_>>()))
    };
    pids.filter(matches).map(Process::of).collect()
}

/// Sends a signal; a process that is already gone is no error.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = number(pid) {
        let _ = kill(pid, signal);
    }
}

fn signal_group(pid: u32, signal: Signal) {
    if let Some(pid) = number(pid) {
        let _ = killpg(pid, signal);
    }
}

/// Whether a process of this number exists and is not a zombie.
pub(crate) fn exists(pid: u32) -> bool {
    let Some(number) = number(pid) else { return false };
    if !matches!(kill(number, None), Ok(()) | Err(Errno::EPERM)) {
        return false;
    }
    stat(pid).is_none_or(|fields| fields.first().is_none_or(|state| state != "Z"))
}

/// Numbers below 2 address every process or init, never one of ours.
fn number(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().filter(|pid| *pid > 1).map(Pid::from_raw)
}

fn started(pid: u32) -> Option<u64> {
    // Field 22 of the line; `stat` begins at field 3.
    stat(pid)?.get(19)?.parse().ok()
}

/// Fields of the process status line after the command name, which may itself contain blanks.
fn stat(pid: u32) -> Option<Vec<String>> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = line.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_number_with_another_start_time_is_another_process() {
        let own = Process::of(std::process::id());
        assert!(own.alive());
        let other = Process { started: own.started.map(|ticks| ticks + 1).or(Some(1)), ..own };
        assert!(!other.alive());
    }

    #[test]
    fn a_frozen_process_is_stopped() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::of(child.id());
        signal(child.id(), Signal::SIGSTOP);
        process.stop(Signal::SIGTERM, Duration::from_secs(5));
        assert!(!process.alive());
        child.wait().unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_is_found_by_what_it_was_started_with() {
        let mark = std::env::temp_dir().join(format!("xtask-mark-{}", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", "echo; read line"]).arg(&mark).env("XTASK_MARK", &mark);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Until it has said something, the system may not show its arguments yet.
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let found = (with_variable("XTASK_MARK", &mark), with_argument("sh", &mark));
        let strangers = with_variable("XTASK_MARK", &mark.join("other"));
        drop(child.stdin.take());
        child.wait().unwrap();
        let pids = |processes: &[Process]| processes.iter().map(|one| one.pid).collect::<Vec<_>>();
        assert_eq!(pids(&found.0), [child.id()]);
        assert_eq!(pids(&found.1), [child.id()]);
        assert_eq!(strangers, []);
    }
}
