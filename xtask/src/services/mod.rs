//! Private, throwaway PostgreSQL and RabbitMQ.

mod compose;
pub(crate) mod install;
mod ports;
mod postgres;
pub(crate) mod process;
mod rabbitmq;
mod record;
mod stop;
mod sweep;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, fs};

use anyhow::{Context, Result};

use self::install::Need;
use self::process::Process;
use self::record::{Kind, Postgres, RabbitMq, Record};
use crate::signals::Signals;
use crate::workspace;

/// How the services are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// PostgreSQL waits for no disk: quick, and safe from anything but a crash of the machine.
    Quick,
    /// PostgreSQL waits for the disk at every commit: what a measurement must include.
    Durable,
}

/// A service just started: its children must be waited for, the rest is for the record.
struct Started<S> {
    child: Child,
    helper: Option<Child>,
    service: S,
}

/// Running services; dropped, they are stopped and removed.
pub(crate) struct Services {
    record: Record,
}

impl Services {
    /// Starts what `DATABASE_URL` and `AMQP_URL` do not name.
    pub(crate) fn start(durability: Durability, signals: &Signals) -> Result<Self> {
        Self::start_given(given("DATABASE_URL"), given("AMQP_URL"), durability, signals)
    }

    /// Starts the halves for which no URL is given.
    pub(crate) fn start_given(
        database_url: Option<String>,
        amqp_url: Option<String>,
        durability: Durability,
        signals: &Signals,
    ) -> Result<Self> {
        sweep::sweep();
        let mut needs = Vec::new();
        if database_url.is_none() {
            needs.push(Need::Postgres);
        }
        if amqp_url.is_none() {
            needs.push(Need::RabbitMq);
        }
        let contained = install::ensure(&needs, signals)?;
        let mut services = Self { record: fresh(durability)? };
        services.record.postgres = database_url.map(external_postgres);
        services.record.rabbitmq = amqp_url.map(external_rabbitmq);
        services.record.save()?;
        services.contain(&contained, signals)?;
        services.launch(signals)?;
        Ok(services)
    }

    fn contain(&mut self, needs: &[Need], signals: &Signals) -> Result<()> {
        if needs.is_empty() {
            return Ok(());
        }
        let project = compose::project(&self.record.run)?;
        self.record.compose = Some(project.clone());
        self.record.save()?;
        let name = |need: &Need| if *need == Need::Postgres { "postgres" } else { "rabbitmq" };
        let names: Vec<_> = needs.iter().map(name).collect();
        compose::up(&project, &names, signals)?;
        if needs.contains(&Need::Postgres) {
            self.record.postgres = Some(compose::postgres(&project)?);
        }
        if needs.contains(&Need::RabbitMq) {
            self.record.rabbitmq = Some(compose::rabbitmq(&project)?);
        }
        self.record.save()
    }

    /// The broker boots while the database is being set up: it takes seconds.
    fn launch(&mut self, signals: &Signals) -> Result<()> {
        let mut broker = None;
        if self.record.rabbitmq.is_none() {
            let scripts = install::rabbitmq().context("rabbitmq-server is gone")?;
            broker = Some(rabbitmq::launch(&scripts, &mut self.record)?);
        }
        if self.record.postgres.is_none() {
            let bin_dir = install::postgres().context("the PostgreSQL server is gone")?;
            let server = postgres::start(&bin_dir, &mut self.record, signals)?;
            reap(server.child);
        }
        if let Some(mut broker) = broker {
            rabbitmq::ready(&mut broker, signals)?;
            reap(broker.child);
            if let Some(helper) = broker.helper {
                reap(helper);
            }
        }
        Ok(())
    }

    /// Path of the record that tests read.
    pub(crate) fn record_path(&self) -> PathBuf {
        Record::path(&self.record.dir)
    }

    /// URL of the database.
    pub(crate) fn database_url(&self) -> &str {
        self.record.database_url().unwrap_or_default()
    }

    /// URL of the broker.
    pub(crate) fn amqp_url(&self) -> &str {
        self.record.amqp_url().unwrap_or_default()
    }

    /// Tells a command where the services are.
    pub(crate) fn lend(&self, command: &mut Command) {
        command
            .env("DATABASE_URL", self.database_url())
            .env("AMQP_URL", self.amqp_url())
            .env("COUNTERFOIL_SERVICES", self.record_path());
    }

    fn print(&self) {
        print(&self.record);
    }

    /// Leaves the services running.
    fn detach(mut self) -> Result<()> {
        self.record.owner = None;
        self.record.save()?;
        let path = detached();
        fs::write(&path, serde_json::to_string_pretty(&self.record)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        self.print();
        // Forgotten on purpose: dropping would stop them.
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        stop::stop(&self.record);
    }
}

/// Waits for a child's end in the background. A killed server that nobody waited for stays visible
/// as a process, and PostgreSQL refuses to restart beside it.
fn reap(mut child: Child) {
    std::thread::spawn(move || child.wait());
}

/// `cargo xtask services`: in the foreground until a stop signal.
pub(crate) fn foreground(durability: Durability, signals: &Signals) -> Result<()> {
    let services = Services::start(durability, signals)?;
    services.print();
    eprintln!("running until Ctrl-C");
    while signals.received().is_none() {
        std::thread::sleep(Duration::from_millis(50));
    }
    eprintln!("stopping");
    Ok(())
}

/// `cargo xtask services --detach`: a second call names the ones that run already.
pub(crate) fn detach(durability: Durability, signals: &Signals) -> Result<()> {
    sweep::sweep();
    if let Some(record) = load_detached()?.filter(sweep::running) {
        eprintln!("already running; `cargo xtask services --stop` stops them");
        print(&record);
        return Ok(());
    }
    Services::start(durability, signals)?.detach()
}

/// `cargo xtask services --stop`.
pub(crate) fn stop_detached() -> Result<()> {
    let Some(record) = load_detached()? else {
        eprintln!("no detached services are recorded in {}", detached().display());
        return Ok(());
    };
    // The copy beside the set knows of nothing later than the detaching.
    stop::stop(&Record::load(&record.dir).unwrap_or(record));
    fs::remove_file(detached()).context("cannot remove detached.json")
}

fn print(record: &Record) {
    println!("DATABASE_URL={}", record.database_url().unwrap_or_default());
    println!("AMQP_URL={}", record.amqp_url().unwrap_or_default());
    println!("COUNTERFOIL_SERVICES={}", Record::path(&record.dir).display());
}

fn detached() -> PathBuf {
    workspace::services().join("detached.json")
}

fn load_detached() -> Result<Option<Record>> {
    match fs::read_to_string(detached()) {
        Ok(text) => serde_json::from_str(&text).map(Some).context("detached.json is damaged"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("cannot read detached.json"),
    }
}

/// A variable that names a service; an empty one counts as unset.
pub(crate) fn given(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn external_postgres(url: String) -> Postgres {
    Postgres { kind: Kind::External, url, private: None }
}

fn external_rabbitmq(url: String) -> RabbitMq {
    RabbitMq { kind: Kind::External, url, private: None }
}

/// A record with a folder of its own.
fn fresh(durability: Durability) -> Result<Record> {
    let pid = std::process::id();
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    let run = format!("{pid}-{nanos:x}");
    let dir = workspace::services().join(&run);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let owner = Some(Process::of(pid));
    let durable = durability == Durability::Durable;
    Ok(Record { run, dir, owner, durable, postgres: None, rabbitmq: None, compose: None })
}

/// The end of a log, for an error message.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
