//! Clusters made from clusters.

use std::time::Instant;

use diesel::RunQueryDsl;
use diesel::connection::SimpleConnection;
use diesel::sql_query;

use super::home::Home;
use super::{Cluster, USER, succeed};
use crate::PATIENCE;

impl Cluster {
    /// An asynchronous standby that streams from this one, started and caught up.
    #[must_use]
    pub fn standby(&self) -> Self {
        let home = Home::new();
        let mut backup = home.program("pg_basebackup");
        backup.arg("--pgdata").arg(home.data()).args(["--checkpoint=fast", "--no-sync"]);
        backup.args(["--wal-method=stream", "--write-recovery-conf"]);
        backup.args(["--dbname", &format!("host=127.0.0.1 port={} user={USER}", self.port)]);
        succeed(&mut backup);
        let mut standby = Self { home, port: 0, server: None };
        standby.choose_port();
        standby.launch();
        standby.catch_up_with(self);
        standby
    }

    /// Waits until everything that is committed on `primary` now has been applied here.
    pub fn catch_up_with(&self, primary: &Self) {
        let reached = primary.value("postgres", "pg_current_wal_lsn()");
        let there = format!("pg_last_wal_replay_lsn() >= '{reached}'::pg_lsn");
        self.wait_until(&there);
    }

    /// Ends the streaming for good: what the primary commits from now on is not here.
    pub fn fall_behind(&self) {
        let mut conn = self.pg("postgres");
        sql_query("ALTER SYSTEM SET primary_conninfo = ''").execute(&mut conn).expect("sets");
        sql_query("SELECT pg_reload_conf()").execute(&mut conn).expect("reloads");
        self.wait_until("NOT EXISTS (SELECT FROM pg_stat_wal_receiver)");
    }

    /// Makes a standby a primary, on a new timeline.
    pub fn promote(&self) {
        let promoted = self.value("postgres", "pg_promote(true, 60)");
        assert_eq!(promoted, "true", "{}", self.log());
    }

    fn wait_until(&self, condition: &str) {
        let until = Instant::now() + PATIENCE / 4;
        while self.value("postgres", condition) != "true" {
            assert!(Instant::now() < until, "never came true: {condition}\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Restores a dump of a database of this cluster as a new database of `other`.
    pub fn dump_and_restore(&self, database: &str, other: &Self) {
        let file = other.home.file("dump");
        let mut dump = other.home.program("pg_dump");
        dump.args(["--format=custom", "--dbname", &self.url(database), "--file"]).arg(&file);
        succeed(&mut dump);
        other.create_database(database);
        let mut restore = other.home.program("pg_restore");
        restore.args(["--exit-on-error", "--dbname", &other.url(database)]).arg(&file);
        succeed(&mut restore);
        // As after any load; nothing depends on it.
        other.pg(database).batch_execute("ANALYZE").expect("analyzes");
    }
}
