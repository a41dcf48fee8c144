//! Running external commands: each is printed first, so that it can be repeated by hand.

use std::ffi::OsStr;
use std::process::{Child, Command, ExitStatus, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use signal_hook::consts::SIGINT;

use crate::services::process;
use crate::signals::Signals;

/// How long a child may take to end after a stop signal before the next, harder one.
const GRACE: Duration = Duration::from_secs(10);
/// Passwords of services that we start.
const THROWAWAY: [&str; 2] = ["counterfoil", "guest"];
const POLL: Duration = Duration::from_millis(20);

/// The command as one would type it, with the variables that differ from ours.
pub(crate) fn line(command: &Command) -> String {
    let mut words = Vec::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            words.push(format!("{}={}", name.to_string_lossy(), quote(value)));
        }
    }
    words.push(quote(command.get_program()));
    words.extend(command.get_args().map(quote));
    words.join(" ")
}

fn quote(word: &OsStr) -> String {
    let word = masked(&word.to_string_lossy());
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word;
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Hides the password of a URL, unless it is one of our own throwaway services.
fn masked(word: &str) -> String {
    let credentials = || {
        let (start, rest) = word.split_once("://")?;
        let (credentials, host) = rest.rsplit_once('@')?;
        let (user, password) = credentials.split_once(':')?;
        Some((start, user, password, host))
    };
    match credentials() {
        Some((start, user, password, host)) if !THROWAWAY.contains(&password) => {
            format!("{start}://{user}:***@{host}")
        }
        _ => word.to_owned(),
    }
}

/// Prints the command.
pub(crate) fn announce(command: &Command) {
    eprintln!("$ {}", line(command));
}

/// Runs a command in the foreground and returns how it ended.
pub(crate) fn run(command: &mut Command, signals: &Signals) -> Result<ExitStatus> {
    signals.check()?;
    announce(command);
    let mut child =
        command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    wait(&mut child, signals)
}

/// Runs a command in the foreground; anything but success is an error.
pub(crate) fn succeed(command: &mut Command, signals: &Signals) -> Result<()> {
    let status = run(command, signals)?;
    signals.check()?;
    if !status.success() {
        bail!("`{}` ended with {status}", line(command));
    }
    Ok(())
}

/// Runs a command and collects what it prints; anything but success is an error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    announce(command);
    let output = probe(command)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` ended with {}: {}", line(command), output.status, said.trim());
    }
    String::from_utf8(output.stdout).context("command printed something that is not UTF-8")
}

/// Runs a command silently, to learn something about the machine.
pub(crate) fn probe(command: &mut Command) -> Result<Output> {
    command
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| format!("cannot start {:?}", command.get_program()))
}

/// Whether a command exists and succeeds.
pub(crate) fn works(program: &str, args: &[&str]) -> bool {
    probe(Command::new(program).args(args)).is_ok_and(|output| output.status.success())
}

fn wait(child: &mut Child, signals: &Signals) -> Result<ExitStatus> {
    let mut asked: Option<Instant> = None;
    let mut termed = false;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a command")? {
            return Ok(status);
        }
        if let Some(signal) = signals.received() {
            let since = *asked.get_or_insert_with(Instant::now);
            // The terminal sends Ctrl-C to the child as well; a second one would make a test
            // runner drop its report.
            let due = signal != SIGINT || since.elapsed() >= GRACE;
            if due && !termed {
                process::signal(child.id(), Signal::SIGTERM);
                termed = true;
            } else if since.elapsed() >= 2 * GRACE {
                process::signal(child.id(), Signal::SIGKILL);
            }
        }
        sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_command_tells_no_password() {
        let mut command = Command::new("demo");
        command.arg("postgres://me:s3cr3t@db/x").arg("amqp://guest:guest@127.0.0.1:1/%2f");
        assert_eq!(
            line(&command),
            "demo 'postgres://me:***@db/x' amqp://guest:guest@127.0.0.1:1/%2f"
        );
    }

    #[test]
    fn a_printed_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("psql");
        command.arg("-c").arg("select 'x'").env("PGPASSWORD", "a b");
        assert_eq!(line(&command), r"PGPASSWORD='a b' psql -c 'select '\''x'\'''");
    }
}
