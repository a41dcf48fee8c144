use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long the program may take to settle what is in flight and end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Ticks per second in `/proc`: the same on every Linux, whatever the kernel was built with.
const TICKS_PER_S: f64 = 100.0;

/// The release build of the `relay` program as a process of its own. Killed when dropped.
pub struct Program {
    child: Child,
}

/// A variable of the program's environment, as in `RELAY_CHUNK_ROWS=1000`.
#[derive(Clone, Debug)]
pub struct Variable {
    name: String,
    value: String,
}

impl std::str::FromStr for Variable {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, value) = text.split_once('=').context("write it as NAME=VALUE")?;
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

/// Resident memory of a process in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// The most it ever was.
    pub peak_mib: f64,
    /// What it is now.
    pub now_mib: f64,
}

impl Program {
    /// Starts it with default settings, but for what `variables` say. It claims the cursor `relay` as
    /// soon as it is up.
    ///
    /// # Errors
    /// When it is not built: `cargo xtask bench` puts it beside the benches.
    pub fn start(database_url: &str, amqp_url: &str, variables: &[Variable]) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name("relay");
        let mut command = Command::new(&program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RELAY_") {
                command.env_remove(name);
            }
        }
        let child = command
            .arg("run")
            .env("RELAY_DATABASE_URL", database_url)
            .env("RELAY_AMQP_URL", amqp_url)
            .env("RELAY_LOG", "warn")
            .envs(variables.iter().map(|variable| (&variable.name, &variable.value)))
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child })
    }

    /// Its memory.
    ///
    /// # Errors
    /// When it has ended.
    pub fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/status", self.child.id());
        let status =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let mib = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<f64>().ok());
            kib.map(|kib| kib / 1024.0).with_context(|| format!("no {field} in {path}"))
        };
        Ok(Memory { peak_mib: mib("VmHWM:")?, now_mib: mib("VmRSS:")? })
    }

    /// Processor time that all of its threads have taken so far, to a hundredth of a second.
    ///
    /// # Errors
    /// When it has ended.
    pub fn processor_s(&self) -> Result<f64> {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        // The name in brackets may hold anything; the state is the first field after it.
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        let mut fields = fields.split_ascii_whitespace().skip(11);
        let mut ticks = || {
            fields.next().and_then(|field| field.parse::<f64>().ok()).context("no times in stat")
        };
        Ok((ticks()? + ticks()?) / TICKS_PER_S)
    }

    /// Fails when it has ended by itself.
    ///
    /// # Errors
    /// How it ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the relay ended with {status}"),
        }
    }

    /// Stops it in order: what is in flight is settled and the lease given up.
    ///
    /// # Errors
    /// When it fails or does not end.
    pub fn stop(mut self) -> Result<()> {
        self.check()?;
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM)?;
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the relay ended with {status}");
                return Ok(());
            }
            ensure!(since.elapsed() < PATIENCE, "the relay does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
