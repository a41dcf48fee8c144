//! Readers of the log: ours, and the two that everybody writes first.

use diesel::sql_types::{BigInt, Binary, Text};
use diesel::{PgConnection, QueryableByName, RunQueryDsl, sql_query};
use outbox::reader::{Filter, LogStore, Position, ReadLimit};

use crate::events::Fact;

/// What a reader read: the facts, in the order in which it handed them on.
pub trait Reader: Send {
    /// One step; the number of rows read.
    fn step(&mut self, conn: &mut PgConnection, into: &mut Vec<Fact>) -> usize;
}

/// The reader under test.
pub struct SnapshotCursor(pub Position);

impl Reader for SnapshotCursor {
    fn step(&mut self, conn: &mut PgConnection, into: &mut Vec<Fact>) -> usize {
        // Small limits, so that late rows and fresh rows are cut off at every place.
        let rows = fastrand::u32(1..400);
        let bytes = if fastrand::u8(..10) == 0 { 5_000 } else { 1 << 20 };
        let chunk =
            conn.read(&self.0, &Filter::default(), ReadLimit { rows, bytes }).expect("reads");
        let more = usize::from(!chunk.exhausted);
        self.0 = chunk.next;
        into.extend(chunk.entries.iter().map(|entry| Fact::from_payload(&entry.message.payload)));
        chunk.entries.len() + more
    }
}

#[derive(QueryableByName)]
struct Naive {
    #[diesel(sql_type = BigInt)]
    at: i64,
    #[diesel(sql_type = Text)]
    xid: String,
    #[diesel(sql_type = Binary)]
    payload: Vec<u8>,
}

/// `seq > last`.
pub struct BySeq(pub i64);

impl Reader for BySeq {
    fn step(&mut self, conn: &mut PgConnection, into: &mut Vec<Fact>) -> usize {
        let rows: Vec<Naive> = sql_query(
            "SELECT seq AS at, xid::text, payload FROM outbox_messages WHERE seq > $1 ORDER BY seq LIMIT 400",
        )
        .bind::<BigInt, _>(self.0)
        .load(conn)
        .expect("reads");
        self.0 = rows.last().map_or(self.0, |row| row.at);
        into.extend(rows.iter().map(|row| Fact::from_payload(&row.payload)));
        rows.len()
    }
}

/// `xid < xmin`, in order of xid.
pub struct ByXmin(pub String, pub i64);

impl Reader for ByXmin {
    fn step(&mut self, conn: &mut PgConnection, into: &mut Vec<Fact>) -> usize {
        let rows: Vec<Naive> = sql_query(
            "SELECT seq AS at, xid::text, payload FROM outbox_messages
             WHERE (xid, seq) > ($1::xid8, $2) AND xid < pg_snapshot_xmin(pg_current_snapshot())
             ORDER BY xid, seq LIMIT 400",
        )
        .bind::<Text, _>(&self.0)
        .bind::<BigInt, _>(self.1)
        .load(conn)
        .expect("reads");
        if let Some(last) = rows.last() {
            (self.0, self.1) = (last.xid.clone(), last.at);
        }
        into.extend(rows.iter().map(|row| Fact::from_payload(&row.payload)));
        rows.len()
    }
}
