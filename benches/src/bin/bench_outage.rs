//! What a relay costs while its broker is away and messages wait, and how soon it goes on.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use benches::{Figures, Fixture, Gate};
use clap::Parser;
use db::Db;
use diesel::sql_types::BigInt;
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query};
use relay::Relay;
use transport::rabbitmq::{RabbitMq, RabbitSettings};

/// Shuts the way to the broker under a running relay, lets messages wait, opens it again.
#[derive(Parser)]
struct Options {
    /// Messages that wait.
    #[arg(long, default_value_t = 50_000)]
    messages: usize,
    /// Seconds without a broker.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where to write the figures.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Be the relay instead: the database's address.
    #[arg(long, hide = true, requires = "relay_to")]
    relay_from: Option<String>,
    /// Be the relay instead: the broker's address.
    #[arg(long, hide = true)]
    relay_to: Option<String>,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// The relay in a process of its own, whose cost the system counts. Killed with this one.
struct Process(Child);

impl Process {
    fn start(database_url: &str, amqp_url: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--relay-from", database_url, "--relay-to", amqp_url]);
        Ok(Self(command.spawn()?))
    }

    /// Processor time used so far, in seconds.
    fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The name before may hold spaces; after it user and system time are the 12th and 13th.
        let after = stat.rsplit_once(')').context("an odd /proc/<pid>/stat")?.1;
        let fields: Vec<_> = after.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        let per_second = Command::new("getconf").arg("CLK_TCK").output()?.stdout;
        Ok(ticks / String::from_utf8(per_second)?.trim().parse::<f64>()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn number(conn: &mut PgConnection, query: &str) -> Result<i64> {
    Ok(sql_query(format!("SELECT ({query})::bigint AS number")).get_result::<Number>(conn)?.number)
}

const CURSOR: &str = "SELECT coalesce(max(seq), 0) FROM outbox_cursors WHERE name = 'relay'";

async fn cursor_reaches(conn: &mut PgConnection, seq: i64) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(120);
    while number(conn, CURSOR)? < seq {
        ensure!(Instant::now() < until, "the relay does not get on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    if let (Some(from), Some(to)) = (&options.relay_from, &options.relay_to) {
        let db = Db::<PgConnection>::open(from, db::Settings::default().with_pool_size(4))?;
        let publisher = Arc::new(RabbitMq::new(&RabbitSettings::new(to))?);
        return Ok(Relay::new(db, publisher).build()?.run(std::future::pending()).await?);
    }
    let fixture = Fixture::new().await?;
    let mut gate = Gate::to(&fixture.amqp_url).await?;
    let mut conn = PgConnection::establish(&fixture.database_url)?;
    let relay = Process::start(&fixture.database_url, &gate.url)?;
    fixture.fill(1_000)?;
    cursor_reaches(&mut conn, 1_000).await?;

    gate.shut().await;
    let (start, before) = (Instant::now(), relay.cpu_seconds()?);
    fixture.fill(options.messages)?;
    tokio::time::sleep(Duration::from_secs(options.seconds).saturating_sub(start.elapsed())).await;
    let waiting_s = start.elapsed().as_secs_f64();
    let cpu_s = relay.cpu_seconds()? - before;
    let moved = number(&mut conn, CURSOR)? - 1_000;
    ensure!(moved == 0, "the cursor passed {moved} rows without a broker");
    let holds = number(&mut conn, "SELECT count(*) FROM outbox_holds")?;
    let attempts = number(&mut conn, "SELECT coalesce(sum(attempts), 0) FROM outbox_holds")?;

    gate.open().await?;
    let back = Instant::now();
    cursor_reaches(&mut conn, 1_001).await?;
    let first_s = back.elapsed().as_secs_f64();
    cursor_reaches(&mut conn, 1_000 + i64::try_from(options.messages)?).await?;
    let drained_s = back.elapsed().as_secs_f64();
    let held_after = number(&mut conn, "SELECT count(*) FROM outbox_holds")?;
    ensure!(held_after == 0, "{held_after} messages are held after an outage");
    fixture.expect_in_queue(1_000 + options.messages).await?;

    let mut figures = Figures::default();
    figures.note("cpu_percent_waiting", 100.0 * cpu_s / waiting_s);
    figures.note("holds", holds as f64);
    figures.note("attempts", attempts as f64);
    figures.note("seconds_to_first_confirm", first_s);
    figures.note("seconds_to_drained", drained_s);
    figures.note("messages", options.messages as f64);
    figures.note("seconds_waiting", waiting_s);
    if let Some(path) = &options.json {
        figures.write(path)?;
    }
    drop(relay);
    fixture.remove().await
}
