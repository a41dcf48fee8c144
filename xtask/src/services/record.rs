//! `services.json`: what runs where, for fault tests, `--stop` and the sweep.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::process::Process;

/// One set of services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Name of the set, unique on this machine.
    pub(crate) run: String,
    /// Folder of the set.
    pub(crate) dir: PathBuf,
    /// The xtask that will stop the services; none for detached ones.
    pub(crate) owner: Option<Process>,
    /// Whether PostgreSQL runs with fsync.
    pub(crate) durable: bool,
    /// The database half.
    pub(crate) postgres: Option<Postgres>,
    /// The broker half.
    pub(crate) rabbitmq: Option<RabbitMq>,
    /// Compose project, where containers stand in for missing binaries.
    pub(crate) compose: Option<Compose>,
}

/// Who runs a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Our own process, which may be stopped, frozen, killed and restarted.
    Private,
    /// Given by the environment; not ours to touch.
    External,
    /// A container of the compose project.
    Container,
}

/// A database server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Postgres {
    pub(crate) kind: Kind,
    pub(crate) url: String,
    /// The rest exists for private servers only.
    pub(crate) private: Option<PrivatePostgres>,
}

/// What is needed to stop and restart our database server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PrivatePostgres {
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) process: Option<Process>,
    /// Folder to remove in the end.
    pub(crate) home: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) socket_dir: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) bin_dir: PathBuf,
    /// The account to run server programs as, when we are root.
    pub(crate) run_as: Option<Account>,
}

/// An account of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A message broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RabbitMq {
    pub(crate) kind: Kind,
    pub(crate) url: String,
    /// The rest exists for private brokers only.
    pub(crate) private: Option<PrivateRabbitMq>,
}

/// What is needed to stop, restart and administer our broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PrivateRabbitMq {
    pub(crate) port: u16,
    pub(crate) dist_port: u16,
    pub(crate) epmd_port: u16,
    pub(crate) process: Option<Process>,
    pub(crate) epmd: Option<Process>,
    /// Where the broker itself writes its process number, also after a restart.
    pub(crate) pid_file: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) log_dir: PathBuf,
    pub(crate) server: PathBuf,
    pub(crate) ctl: PathBuf,
    /// Environment for `server` and `ctl`.
    pub(crate) env: BTreeMap<String, String>,
}

/// A compose project of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Compose {
    pub(crate) project: String,
    pub(crate) file: PathBuf,
}

impl Record {
    /// Path of the record of a set.
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("services.json")
    }

    /// Reads the record of a set.
    pub(crate) fn load(dir: &Path) -> Result<Self> {
        let path = Self::path(dir);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not a services record", path.display()))
    }

    /// Writes the record; readers see the old one or the new one, never half of it.
    pub(crate) fn save(&self) -> Result<()> {
        let path = Self::path(&self.dir);
        let draft = path.with_extension("json.new");
        fs::write(&draft, serde_json::to_string_pretty(self)?)
            .and_then(|()| fs::rename(&draft, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// URL of the database.
    pub(crate) fn database_url(&self) -> Option<&str> {
        self.postgres.as_ref().map(|postgres| postgres.url.as_str())
    }

    /// URL of the broker.
    pub(crate) fn amqp_url(&self) -> Option<&str> {
        self.rabbitmq.as_ref().map(|rabbitmq| rabbitmq.url.as_str())
    }
}
