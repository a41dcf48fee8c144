//! The relay program under test, with timings short enough to wait for the end of a lease.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use crate::database::Database;
use crate::process::Process;
use crate::services::amqp_url;

/// How relays of one test are started.
#[derive(Clone)]
pub struct Relays {
    dir: PathBuf,
    database: String,
    broker: String,
    relay: BTreeMap<String, String>,
}

impl Relays {
    /// Relays from `database` to the broker of the test run: lease 5 s, heartbeat 2 s, chunks of 200
    /// rows of which 3 are in flight. A standby says so at each try.
    #[must_use]
    pub fn on(database: &Database) -> Self {
        let dir = std::env::temp_dir().join(format!("relays-{}", uuid::Uuid::now_v7().simple()));
        std::fs::create_dir(&dir).expect("temporary directory");
        Self {
            dir,
            database: database.url.clone(),
            broker: amqp_url(),
            relay: [
                ("lease", "'5s'"),
                ("standby_poll", "'100ms'"),
                ("chunk_rows", "200"),
                ("chunks_in_flight", "3"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        }
    }

    /// Most messages a fault can repeat.
    pub const IN_FLIGHT: usize = 600;

    /// With another way to the broker.
    #[must_use]
    pub fn broker(mut self, url: impl Into<String>) -> Self {
        self.broker = url.into();
        self
    }

    /// With another way to the database.
    #[must_use]
    pub fn database(mut self, url: impl Into<String>) -> Self {
        self.database = url.into();
        self
    }

    /// With another setting in the part `[relay]`.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.relay.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Starts one. `name` is what [`fence`](crate::fence) and the database know it by.
    #[must_use]
    pub fn start(&self, name: &str) -> Process {
        let config = self.dir.join(format!("{name}.toml"));
        let mut text = "[database]\nacquire_timeout = '2s'\nlock_timeout = '2s'\n[broker]\nheartbeat = '2s'\npublish_timeout = '4s'\n\
                        [log]\nfilter = 'info,relay=debug'\n[relay]\n"
            .to_owned();
        for (name, value) in &self.relay {
            writeln!(text, "{name} = {value}").expect("text");
        }
        std::fs::write(&config, text).expect("written");
        let mut database = self.database.clone();
        if database.starts_with("postgres") {
            let and = if database.contains('?') { '&' } else { '?' };
            write!(database, "{and}application_name={name}").expect("text");
        }
        Process::start(
            "relay",
            &["run", "--config", config.to_str().expect("UTF-8")],
            &[("RELAY_DATABASE_URL", &database), ("RELAY_AMQP_URL", &self.broker)],
        )
    }

    /// Removes the settings files. A test that fails leaves them.
    pub fn clean(self) {
        let _ = std::fs::remove_dir_all(self.dir);
    }
}
