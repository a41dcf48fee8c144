//! The relay of the release before, reduced to its statements on the outbox. They are frozen here, as
//! text: what a rolling upgrade meets is not this release's code.

use std::collections::HashSet;

use diesel::connection::SimpleConnection;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text};
use diesel::{
    Connection, OptionalExtension, PgConnection, QueryableByName, RunQueryDsl, sql_query,
};
use message::{Headers, Message};
use transport::rabbitmq::RabbitMq;
use transport::{Lane, Publisher, Verdict};

const TTL_MICROS: i64 = 5_000_000;
const ROWS: i64 = 200;

/// A holder of the cursor `relay`.
pub struct Previous {
    conn: PgConnection,
    broker: RabbitMq,
    lane: Box<dyn Lane>,
    stored: Stored,
    /// Keys that have a held message. Loaded once, and forgotten late, as by that release.
    held: HashSet<String>,
}

#[derive(QueryableByName)]
struct Stored {
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Text)]
    snapshot: String,
    #[diesel(sql_type = Nullable<BigInt>)]
    late_seq: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    late_snapshot: Option<String>,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    now: String,
    #[diesel(sql_type = BigInt)]
    last: i64,
    #[diesel(sql_type = BigInt)]
    late_found: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    seq: Option<i64>,
    #[diesel(sql_type = Bool)]
    late: bool,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Nullable<diesel::sql_types::Uuid>)]
    id: Option<uuid::Uuid>,
    #[diesel(sql_type = Nullable<Text>)]
    kind: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    operation: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    ordering_key: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    exchange: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    routing_key: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    payload: Option<String>,
}

#[derive(QueryableByName)]
struct Key {
    #[diesel(sql_type = Text)]
    ordering_key: String,
}

/// Of `outbox_messages m`, with the payload as the text that it is in the tests.
const COLUMNS: &str = "m.id, m.kind, m.operation, m.ordering_key, m.exchange,
    coalesce(m.routing_key, m.kind) AS routing_key, convert_from(m.payload, 'UTF8') AS payload";

impl Previous {
    /// Takes the cursor, if it is free.
    pub async fn claim(url: &str, broker: RabbitMq) -> Option<Self> {
        let mut conn = PgConnection::establish(url).expect("connects");
        sql_query("INSERT INTO outbox_cursors (name) VALUES ('relay') ON CONFLICT DO NOTHING")
            .execute(&mut conn)
            .expect("inserts");
        let stored: Stored = sql_query(
            "UPDATE outbox_cursors
             SET owner = 'previous', epoch = epoch + 1,
                 lease_until = clock_timestamp() + $1 * interval '1 microsecond'
             WHERE name = 'relay' AND (owner IS NULL OR owner = 'previous' OR lease_until <= clock_timestamp())
             RETURNING epoch, seq, snapshot::text, late_seq, late_snapshot::text",
        )
        .bind::<BigInt, _>(TTL_MICROS)
        .get_result(&mut conn)
        .optional()
        .expect("claims")?;
        let held: Vec<Key> = sql_query(
            "SELECT DISTINCT ordering_key FROM outbox_holds
             WHERE cursor = 'relay' AND ordering_key IS NOT NULL AND reason <> 'delayed'",
        )
        .load(&mut conn)
        .expect("keys");
        let held = held.into_iter().map(|key| key.ordering_key).collect();
        let lane = broker.open_lane().await.expect("a lane");
        Some(Self { conn, broker, lane, stored, held })
    }

    /// Gives the cursor up.
    pub async fn release(mut self) {
        let rows = sql_query(
            "UPDATE outbox_cursors SET owner = NULL, lease_until = NULL, epoch = epoch + 1
             WHERE name = 'relay' AND epoch = $1",
        )
        .bind::<BigInt, _>(self.stored.epoch)
        .execute(&mut self.conn)
        .expect("releases");
        assert_eq!(rows, 1, "the lease was lost");
        Publisher::close(&self.broker).await;
    }

    /// Reads on, publishes and advances; whether there was anything.
    pub async fn step(&mut self) -> bool {
        let rows = match (self.stored.late_seq, self.stored.late_snapshot.clone()) {
            (Some(seq), Some(snapshot)) => self.late_piece(seq, &snapshot),
            _ => self.fresh(),
        };
        let (now, last, late_found) =
            rows.first().map(|row| (row.now.clone(), row.last, row.late_found)).expect("a row");
        let rows: Vec<Row> = rows.into_iter().filter(|row| row.seq.is_some()).collect();
        let count = rows.len() as i64;
        let seqs: Vec<i64> = rows.iter().filter_map(|row| row.seq).collect();
        let late_read = rows.iter().filter(|row| row.late).count() as i64;
        let last_late = rows.iter().rev().find(|row| row.late).and_then(|row| row.seq);
        let holds = self.publish(rows, false).await;
        let at = &mut self.stored;
        if at.late_seq.is_some() {
            if count == ROWS {
                at.late_seq = seqs.last().copied();
            } else {
                at.snapshot = at.late_snapshot.take().expect("both");
                at.late_seq = None;
            }
        } else if last_late.is_some() && !(late_read == late_found && late_found < ROWS) {
            (at.late_seq, at.late_snapshot) = (last_late, Some(now));
        } else {
            let read_to = seqs.last().map_or(at.seq, |seq| *seq).max(at.seq);
            at.seq = if count < ROWS { read_to.max(last) } else { read_to };
            at.snapshot = now;
        }
        self.advance(&holds);
        count > 0
    }

    /// Tries what is held and due once more.
    pub async fn retry(&mut self) {
        let query = format!(
            "SELECT '' AS now, 0::bigint AS last, 0::bigint AS late_found, m.seq, false AS late, h.attempts, {COLUMNS}
             FROM outbox_holds h JOIN outbox_messages m USING (seq)
             WHERE h.cursor = 'relay' AND h.state = 'waiting' AND h.not_before <= clock_timestamp()
               AND (h.reason = 'delayed' OR NOT EXISTS (
                   SELECT FROM outbox_holds e
                   WHERE e.cursor = h.cursor AND e.ordering_key = h.ordering_key AND e.seq < h.seq AND e.reason <> 'delayed'))
             ORDER BY h.not_before, h.seq LIMIT {ROWS}"
        );
        let due: Vec<Row> = sql_query(query).load(&mut self.conn).expect("due");
        let seqs: Vec<i64> = due.iter().filter_map(|row| row.seq).collect();
        let holds = self.publish(due, true).await;
        let epoch = self.stored.epoch;
        self.conn
            .transaction::<_, diesel::result::Error, _>(|tx| {
                let renewed = sql_query(
                    "UPDATE outbox_cursors SET lease_until = clock_timestamp() + $2 * interval '1 microsecond'
                     WHERE name = 'relay' AND epoch = $1",
                )
                .bind::<BigInt, _>(epoch)
                .bind::<BigInt, _>(TTL_MICROS)
                .execute(tx)?;
                assert_eq!(renewed, 1, "the lease was lost");
                for seq in seqs {
                    sql_query("DELETE FROM outbox_holds WHERE cursor = 'relay' AND seq = $1")
                        .bind::<BigInt, _>(seq)
                        .execute(tx)?;
                    insert(tx, holds.iter().filter(|hold| hold.seq == seq))?;
                }
                Ok(())
            })
            .expect("settles");
    }

    fn fresh(&mut self) -> Vec<Row> {
        let query = format!(
            "WITH s AS MATERIALIZED (
                 SELECT pg_current_snapshot() AS now, (SELECT last_value FROM outbox_messages_seq_seq) AS last
             ), late AS MATERIALIZED (
                 SELECT seq FROM (
                     SELECT seq FROM outbox_messages
                     WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot) EXCEPT SELECT pg_snapshot_xip(now) FROM s)) AND seq <= $2
                     UNION ALL SELECT seq FROM outbox_messages WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot) AND seq <= $2
                     OFFSET 0) AS either ORDER BY seq LIMIT {ROWS}
             ), picked AS (
                 SELECT m.seq, true AS late, {COLUMNS} FROM late JOIN outbox_messages m USING (seq)
                 UNION ALL
                 (SELECT m.seq, false AS late, {COLUMNS} FROM outbox_messages m WHERE m.seq > $2
                  ORDER BY m.seq LIMIT greatest(0, {ROWS} - (SELECT count(*) FROM late)))
             )
             SELECT s.now::text, s.last, (SELECT count(*) FROM late) AS late_found, r.seq, coalesce(r.late, false) AS late, 0 AS attempts,
                    r.id, r.kind, r.operation, r.ordering_key, r.exchange, r.routing_key, r.payload
             FROM s LEFT JOIN picked r ON true ORDER BY r.seq"
        );
        let query = sql_query(query).bind::<Text, _>(self.stored.snapshot.clone());
        query.bind::<BigInt, _>(self.stored.seq).load(&mut self.conn).expect("reads")
    }

    fn late_piece(&mut self, seq: i64, snapshot: &str) -> Vec<Row> {
        let query = format!(
            "SELECT '' AS now, 0::bigint AS last, 0::bigint AS late_found, m.seq, true AS late, 0 AS attempts, {COLUMNS}
             FROM (SELECT) one LEFT JOIN outbox_messages m ON m.seq > $1 AND m.seq <= $2
                AND pg_visible_in_snapshot(m.xid, $3::text::pg_snapshot)
                AND NOT pg_visible_in_snapshot(m.xid, $4::text::pg_snapshot)
             ORDER BY m.seq LIMIT {ROWS}"
        );
        let query = sql_query(query).bind::<BigInt, _>(seq).bind::<BigInt, _>(self.stored.seq);
        let query = query.bind::<Text, _>(snapshot).bind::<Text, _>(self.stored.snapshot.clone());
        query.load(&mut self.conn).expect("reads")
    }

    /// One by one, so that nothing of a key is sent beside a refused one; what is to be held.
    async fn publish(&mut self, rows: Vec<Row>, again: bool) -> Vec<Hold> {
        let mut holds = Vec::new();
        for row in rows {
            let Row { seq: Some(seq), attempts, ordering_key, .. } = row else { continue };
            let key = ordering_key.clone().expect("a key");
            if !again && self.held.contains(&key) {
                holds.push(Hold { seq, reason: "behind", attempts: 0, wait: 0, key });
                continue;
            }
            let message = Message {
                id: row.id.expect("an id").into(),
                kind: row.kind.expect("a kind"),
                operation: row.operation.expect("an operation"),
                ordering_key,
                exchange: row.exchange.expect("an exchange"),
                routing_key: row.routing_key.expect("a routing key"),
                headers: Headers::new(),
                content_type: Message::JSON.into(),
                payload: row.payload.expect("a payload").into(),
                created_at: std::time::SystemTime::now(),
            };
            match &self.lane.publish(&[message]).await.expect("the broker answers")[..] {
                [Verdict::Confirmed] => {}
                _ => {
                    self.held.insert(key.clone());
                    let (reason, attempts) = ("exchange_missing", attempts + 1);
                    holds.push(Hold { seq, reason, attempts, wait: 1_000_000, key });
                }
            }
        }
        holds
    }

    fn advance(&mut self, holds: &[Hold]) {
        let Stored { epoch, seq, snapshot, late_seq, late_snapshot } = &self.stored;
        self.conn
            .transaction::<_, diesel::result::Error, _>(|tx| {
                let moved = sql_query(
                    "UPDATE outbox_cursors
                     SET seq = $3, snapshot = $4::text::pg_snapshot, late_seq = $5, late_snapshot = $6::text::pg_snapshot,
                         advanced_at = clock_timestamp(), lease_until = clock_timestamp() + $2 * interval '1 microsecond'
                     WHERE name = 'relay' AND epoch = $1",
                )
                .bind::<BigInt, _>(epoch)
                .bind::<BigInt, _>(TTL_MICROS)
                .bind::<BigInt, _>(seq)
                .bind::<Text, _>(snapshot)
                .bind::<Nullable<BigInt>, _>(late_seq)
                .bind::<Nullable<Text>, _>(late_snapshot)
                .execute(tx)?;
                assert_eq!(moved, 1, "the lease was lost");
                insert(tx, holds)
            })
            .expect("advances");
    }

    /// Ends its session in the middle of whatever it does, with the lease still its own.
    pub fn vanish(mut self) {
        let _ = self.conn.batch_execute("SELECT pg_terminate_backend(pg_backend_pid())");
    }
}

struct Hold {
    seq: i64,
    reason: &'static str,
    attempts: i32,
    wait: i64,
    key: String,
}

fn insert<'a>(
    conn: &mut PgConnection,
    holds: impl IntoIterator<Item = &'a Hold>,
) -> diesel::QueryResult<()> {
    for hold in holds {
        sql_query(
            "INSERT INTO outbox_holds (cursor, seq, state, reason, attempts, not_before, last_error, ordering_key)
             VALUES ('relay', $1, 'waiting', $2, $3, clock_timestamp() + $4 * interval '1 microsecond', '', $5)
             ON CONFLICT DO NOTHING",
        )
        .bind::<BigInt, _>(hold.seq)
        .bind::<Text, _>(hold.reason)
        .bind::<Integer, _>(hold.attempts)
        .bind::<BigInt, _>(hold.wait)
        .bind::<Text, _>(&hold.key)
        .execute(conn)?;
    }
    Ok(())
}
