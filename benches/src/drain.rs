use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use diesel::sql_types::{BigInt, Double};
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query};

use crate::{Fixture, Memory, Program, Variable};

/// Between two looks at the cursor. The times come from the cursor itself, so this costs no
/// precision.
const LOOK: Duration = Duration::from_millis(50);
/// Without an advance for so long the relay is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// One run of the `relay` program over a part of the backlog.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// Rows per second between two advances of the cursor, by the database's clock. Start, connecting
    /// and stop of the program are not within.
    pub per_s: f64,
    /// The program's memory after the last of these rows.
    pub memory: Memory,
}

#[derive(Clone, Copy, QueryableByName)]
struct Advanced {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Double)]
    at: f64,
}

#[derive(QueryableByName)]
struct Rows {
    #[diesel(sql_type = BigInt)]
    rows: i64,
}

impl Drain {
    /// Starts the program, lets the cursor move over `rows` rows after its first advance, and stops
    /// it. Then the queue must hold exactly the rows the cursor has passed, and is emptied.
    ///
    /// # Errors
    /// When the relay is stuck or fails, or a message is missing or repeated.
    pub async fn run(fixture: &Fixture, rows: i64, variables: &[Variable]) -> Result<Self> {
        let mut conn = PgConnection::establish(&fixture.database_url)?;
        let before = cursor(&mut conn)?.seq;
        let mut program = Program::start(&fixture.database_url, &fixture.amqp_url, variables)?;
        let first = passes(&mut conn, &mut program, before + 1).await?;
        let last = passes(&mut conn, &mut program, first.seq + rows).await?;
        let memory = program.memory()?;
        program.stop()?;
        let after = cursor(&mut conn)?.seq;
        let passed = sql_query(format!(
            "SELECT count(*) AS rows FROM outbox_messages WHERE seq > {before} AND seq <= {after}"
        ));
        let passed: Rows = passed.get_result(&mut conn)?;
        fixture.expect_in_queue(usize::try_from(passed.rows)?).await?;
        let per_s = (last.seq - first.seq) as f64 / (last.at - first.at);
        Ok(Self { per_s, memory })
    }
}

fn cursor(conn: &mut PgConnection) -> Result<Advanced> {
    let query = sql_query(
        "SELECT seq, coalesce(extract(epoch FROM advanced_at), 0)::float8 AS at
         FROM outbox_cursors WHERE name = 'relay'",
    );
    Ok(query.get_result(conn)?)
}

async fn passes(conn: &mut PgConnection, program: &mut Program, seq: i64) -> Result<Advanced> {
    let (mut last, mut since) = (cursor(conn)?, Instant::now());
    loop {
        let now = cursor(conn)?;
        if now.seq >= seq {
            return Ok(now);
        }
        program.check()?;
        if now.seq > last.seq {
            (last, since) = (now, Instant::now());
        }
        ensure!(since.elapsed() < PATIENCE, "the cursor stands still at {} of {seq}", now.seq);
        tokio::time::sleep(LOOK).await;
    }
}
