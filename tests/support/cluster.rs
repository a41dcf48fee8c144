//! A PostgreSQL cluster that belongs to one test: to be stopped, frozen, filled up, copied, replaced
//! by its standby. Nothing of it is durable, and nothing of it is left when the test has ended,
//! whichever way it ends.

mod copy;
mod home;

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use diesel::connection::SimpleConnection;
use diesel::sql_types::{Integer, Text};
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::PATIENCE;
use home::Home;

const USER: &str = "counterfoil";
/// Restarts must find the port free, not taken as the source port of a client that tries to connect.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A running or stopped cluster. Dropping it ends and removes it.
pub struct Cluster {
    home: Home,
    port: u16,
    server: Option<Child>,
}

/// How a server is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It ends every session and writes a checkpoint.
    Fast,
    /// It ends at once, as after a crash, and recovers when it starts again.
    Immediate,
}

#[derive(QueryableByName)]
struct Backend {
    #[diesel(sql_type = Integer)]
    pid: i32,
}

#[derive(QueryableByName)]
struct Value {
    #[diesel(sql_type = Text)]
    value: String,
}

impl Cluster {
    /// A new cluster with these lines added to its settings, started.
    #[must_use]
    pub fn start(settings: &str) -> Self {
        Self::create(Home::new(), settings)
    }

    /// The same on a disk of its own of this size. The write-ahead log lies there as well if
    /// `with_wal`, else beside it, where there is room.
    #[must_use]
    pub fn start_on_disk(mebibytes: u32, with_wal: bool) -> Self {
        let home = Home::on_disk(mebibytes, with_wal);
        Self::create(home, "min_wal_size = 2MB\nmax_wal_size = 4MB\nautovacuum = off\n")
    }

    fn create(home: Home, settings: &str) -> Self {
        let mut initdb = home.program("initdb");
        initdb.arg("--pgdata").arg(home.data()).args(["--username", USER, "--auth=trust"]);
        initdb.args(["--encoding=UTF8", "--locale=C", "--no-sync", "--wal-segsize=1"]);
        if let Some(wal) = home.wal() {
            initdb.arg("--waldir").arg(wal);
        }
        succeed(&mut initdb);
        let mut cluster = Self { home, port: 0, server: None };
        cluster.set(&format!(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n\
             max_connections = 60\nmax_prepared_transactions = 5\nshared_buffers = 16MB\n\
             wal_level = replica\nmax_wal_senders = 4\nwal_keep_size = 64MB\n\
             timezone = 'UTC'\nlog_timezone = 'UTC'\n{settings}\n",
        ));
        cluster.choose_port();
        cluster.launch();
        cluster
    }

    /// Adds lines to the settings; they count from the next start.
    pub fn set(&self, lines: &str) {
        let path = self.home.data().join("postgresql.conf");
        let before = fs::read_to_string(&path).expect("settings");
        fs::write(path, before + "\n" + lines).expect("settings");
    }

    fn choose_port(&mut self) {
        let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let port = std::iter::repeat_with(|| fastrand::u16(PORTS)).find(free).expect("a free port");
        self.port = port;
        self.set(&format!("port = {port}"));
    }

    /// Starts the server on its old port, and waits until it answers.
    pub fn launch(&mut self) {
        self.launch_unready();
        let until = Instant::now() + PATIENCE / 2;
        while let Err(error) = PgConnection::establish(&self.url("postgres")) {
            let ended = self.server.as_mut().is_none_or(|s| s.try_wait().expect("waits").is_some());
            assert!(!ended && Instant::now() < until, "not ready: {error}\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Starts the server and does not wait.
    pub fn launch_unready(&mut self) {
        let log = File::options().create(true).append(true).open(self.home.log()).expect("a log");
        let mut postgres = self.home.program("postgres");
        postgres.arg("-D").arg(self.home.data()).process_group(0).stdin(Stdio::null());
        postgres.stdout(log.try_clone().expect("a log")).stderr(log);
        self.server = Some(postgres.spawn().expect("starts"));
    }

    /// Where a database of the cluster is.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Where the server listens.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A connection with the server's defaults.
    #[must_use]
    pub fn pg(&self, database: &str) -> PgConnection {
        PgConnection::establish(&self.url(database)).expect("connects")
    }

    /// Creates an empty database.
    pub fn create_database(&self, name: &str) {
        sql_query(format!("CREATE DATABASE {name}"))
            .execute(&mut self.pg("postgres"))
            .expect("new");
    }

    /// Creates a database with our tables; its URL.
    #[must_use]
    pub fn migrated(&self, name: &str) -> String {
        self.create_database(name);
        migrations::run(&mut self.pg(name)).expect("migrates");
        self.url(name)
    }

    /// Stops the server and waits until it is gone.
    pub fn stop(&mut self, how: Stop) {
        self.thaw();
        let Some(mut server) = self.server.take() else { return };
        let signal = match how {
            Stop::Fast => Signal::SIGINT,
            Stop::Immediate => Signal::SIGQUIT,
        };
        let _ = kill(pid(server.id()), signal);
        let until = Instant::now() + PATIENCE / 4;
        while server.try_wait().expect("waits").is_none() {
            if Instant::now() > until {
                let _ = server.kill();
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Whether the server has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.server.as_mut().is_none_or(|server| server.try_wait().expect("waits").is_some())
    }

    /// Stops and starts.
    pub fn restart(&mut self, how: Stop) {
        self.stop(how);
        self.launch();
    }

    /// Freezes the whole server (SIGSTOP): its sockets stay open and nothing answers any more.
    pub fn freeze(&self) {
        self.signal_all(Signal::SIGSTOP);
    }

    /// Ends [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        self.signal_all(Signal::SIGCONT);
    }

    fn signal_all(&self, signal: Signal) {
        let Some(server) = &self.server else { return };
        // The one that makes new ones first when freezing, so that none is missed.
        let _ = kill(pid(server.id()), signal);
        for child in children(server.id()) {
            let _ = kill(pid(child), signal);
        }
    }

    /// The sessions of programs that call themselves so.
    #[must_use]
    pub fn sessions(&self, application: &str) -> Vec<i32> {
        let found: Vec<Backend> =
            sql_query("SELECT pid FROM pg_stat_activity WHERE application_name = $1")
                .bind::<Text, _>(application)
                .load(&mut self.pg("postgres"))
                .expect("sessions");
        found.into_iter().map(|backend| backend.pid).collect()
    }

    /// Uses up transaction numbers.
    pub fn burn_xids(&self, count: u32) {
        let mut conn = self.pg("postgres");
        conn.batch_execute("SET synchronous_commit = off").expect("sets");
        let one = "PERFORM pg_current_xact_id(); COMMIT;";
        // Alone in its query: only then may a block commit.
        conn.batch_execute(&format!("DO $$ BEGIN FOR i IN 1..{count} LOOP {one} END LOOP; END $$"))
            .expect("burns");
    }

    /// The next transaction number.
    #[must_use]
    pub fn next_xid(&self) -> u64 {
        let text = self.value("postgres", "pg_snapshot_xmax(pg_current_snapshot())::text");
        text.parse().expect("a number")
    }

    /// The value of an expression, as text.
    #[must_use]
    pub fn value(&self, database: &str, expression: &str) -> String {
        let query = format!("SELECT ({expression})::text AS value");
        sql_query(query).get_result::<Value>(&mut self.pg(database)).expect("a value").value
    }

    /// What the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.log()).unwrap_or_default()
    }

    /// Takes up the rest of the cluster's own disk.
    pub fn fill_disk(&self) {
        self.home.fill();
    }

    /// Ends [`fill_disk`](Self::fill_disk).
    pub fn free_disk(&self) {
        self.home.free();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(15).collect();
            eprintln!("the server's log ends with:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
        self.stop(Stop::Immediate);
    }
}

/// Sends a signal to sessions.
pub fn signal(sessions: &[i32], signal: Signal) {
    for session in sessions {
        let _ = kill(Pid::from_raw(*session), signal);
    }
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).expect("a pid"))
}

/// Processes that this one started.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent_of = |pid: u32| {
        let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        line.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn succeed(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
}
