//! Real consumer processes on one queue, to be killed and started again, and what they told before.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use diesel::sql_types::BigInt;
use diesel::{PgConnection, QueryableByName, RunQueryDsl, sql_query};

use crate::inbox::BILLING;
use crate::process::Process;

/// Longer than any lease.
const HOUR: Duration = Duration::from_secs(3600);

/// Processes of one program.
pub struct Consumers {
    program: &'static str,
    orders: Vec<String>,
    amqp_url: String,
    told: PathBuf,
    running: Vec<Running>,
    started: usize,
    endings: Vec<(String, String)>,
}

struct Running {
    process: Process,
    told: PathBuf,
}

impl Consumers {
    /// Starts `count` with these arguments (see `ledger_consumer`) against this broker.
    #[must_use]
    pub fn start(count: usize, orders: &[&str], amqp_url: &str) -> Self {
        Self::of("ledger_consumer", count, orders, amqp_url)
    }

    /// The same of another program that takes the file to tell its endings to first.
    #[must_use]
    pub fn of(program: &'static str, count: usize, orders: &[&str], amqp_url: &str) -> Self {
        let told = std::env::temp_dir().join(format!("cf-told-{}", uuid::Uuid::now_v7().simple()));
        std::fs::create_dir(&told).expect("temporary directory");
        let mut consumers = Self {
            program,
            orders: orders.iter().map(|order| (*order).to_owned()).collect(),
            amqp_url: amqp_url.to_owned(),
            told,
            running: Vec::new(),
            started: 0,
            endings: Vec::new(),
        };
        for _ in 0..count {
            consumers.start_one();
        }
        consumers
    }

    fn start_one(&mut self) {
        let told = self.told.join(self.started.to_string());
        self.started += 1;
        let mut orders = vec![told.to_str().expect("UTF-8")];
        orders.extend(self.orders.iter().map(String::as_str));
        let process = Process::start(self.program, &orders, &[("AMQP_URL", &self.amqp_url)]);
        self.running.push(Running { process, told });
    }

    /// Kills one of them, whatever it is doing (SIGKILL), and starts another.
    ///
    /// # Panics
    /// When it had ended by itself.
    pub fn kill_any(&mut self) {
        let any = fastrand::usize(..self.running.len());
        let mut killed = self.running.swap_remove(any);
        assert!(!killed.process.has_ended(), "ended: {}", killed.ended());
        killed.process.kill();
        self.endings.extend(killed.endings());
        self.start_one();
    }

    /// Tells all to stop and waits until they have; every ending that any of them has told, with its
    /// operation.
    ///
    /// # Panics
    /// When one had ended before, or ends badly.
    pub fn stop(mut self) -> Vec<(String, String)> {
        for one in &mut self.running {
            assert!(!one.process.has_ended(), "ended: {}", one.ended());
            one.process.terminate();
        }
        for mut one in self.running {
            let status = one.process.finish();
            assert!(status.success(), "{status:?}: {}", one.process.output);
            self.endings.extend(one.endings());
        }
        let _ = std::fs::remove_dir_all(&self.told);
        self.endings
    }
}

impl Running {
    fn ended(&mut self) -> String {
        let status = self.process.finish();
        format!("{status:?}: {}", self.process.output)
    }

    fn endings(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(&self.told).unwrap_or_default();
        // A line cut off by the kill is none.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(ending, operation)| (ending.to_owned(), operation.to_owned()))
            .collect()
    }
}

/// How often each ending was told.
#[must_use]
pub fn counted(endings: &[(String, String)]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for (ending, _) in endings {
        *counts.entry(ending.as_str()).or_default() += 1;
    }
    counts
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Waits until a query's `count` has come so far. What a killed process was retrying is leased to it for
/// minutes: that time passes where nothing else happens.
pub async fn reaches(conn: &mut PgConnection, query: &str, far: i64) {
    let (mut before, mut same) = (0, 0);
    crate::eventually("enough takes effect", async || {
        let count = sql_query(query).get_result::<Count>(conn).expect("counts").count;
        same = if count == before { same + 1 } else { 0 };
        before = count;
        if same >= 50 {
            same = 0;
            // Lost against the inboxes' own transactions, it is done the next time.
            let _ = inbox::testing::pass_time(conn, BILLING, HOUR);
        }
        count >= far
    })
    .await;
}
