//! Watches the cursor from inside the database: who takes it, and whether anybody else writes to it.

use diesel::connection::SimpleConnection;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use diesel::{PgConnection, QueryableByName, RunQueryDsl, sql_query};

/// One change of the lease's holder.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub struct Term {
    /// The relay's name, as given to [`Relays::start`](crate::relays::Relays::start).
    #[diesel(sql_type = Text)]
    pub who: String,
    /// Its epoch.
    #[diesel(sql_type = BigInt)]
    pub epoch: i64,
    /// Whether the one before had given the lease up, so that its end had not to be waited for.
    #[diesel(sql_type = Bool)]
    pub vacant: bool,
}

#[derive(QueryableByName)]
struct Problem {
    #[diesel(sql_type = Text)]
    text: String,
}

#[derive(QueryableByName)]
struct Owner {
    #[diesel(sql_type = Nullable<Text>)]
    owner: Option<String>,
}

/// Records every claim and advance, and everything that must not be: a write by another than the
/// holder, a claim before the lease ended, an epoch or a position that goes back. It only watches: a
/// write that was refused here could not show that the relay lacks its own fence.
pub fn watch(conn: &mut PgConnection) {
    conn.batch_execute(
        "CREATE TABLE fence_writes (
             id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
             who text NOT NULL, what text NOT NULL, epoch bigint NOT NULL, seq bigint NOT NULL,
             vacant boolean NOT NULL, problem text);
         CREATE FUNCTION fence_watch() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
         DECLARE
             who text := current_setting('application_name');
             what text := CASE
                 WHEN new.epoch <> old.epoch AND new.owner IS NOT NULL THEN 'claim'
                 WHEN new.epoch <> old.epoch THEN 'release'
                 WHEN new.advanced_at IS DISTINCT FROM old.advanced_at THEN 'advance'
                 ELSE 'renewal' END;
             holder text := (SELECT w.who FROM fence_writes w WHERE w.what IN ('claim', 'release')
                             ORDER BY id DESC LIMIT 1);
             problem text := CASE
                 WHEN new.epoch < old.epoch THEN 'the epoch went back'
                 WHEN new.seq < old.seq THEN 'the cursor went back'
                 WHEN what = 'claim' AND old.owner <> new.owner AND old.lease_until > clock_timestamp()
                     THEN 'claimed before the lease ended'
                 WHEN what <> 'claim' AND who IS DISTINCT FROM holder THEN 'stale: ' || coalesce(holder, 'nobody') || ' holds it'
                 END;
         BEGIN
             IF what <> 'renewal' OR problem IS NOT NULL THEN
                 INSERT INTO fence_writes (who, what, epoch, seq, vacant, problem)
                 VALUES (who, what, new.epoch, new.seq, old.owner IS NULL, problem);
             END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER fence_watch AFTER UPDATE ON outbox_cursors
             FOR EACH ROW EXECUTE FUNCTION fence_watch();",
    )
    .expect("watches");
}

/// Who has held the lease, in order.
pub fn terms(conn: &mut PgConnection) -> Vec<Term> {
    sql_query("SELECT who, epoch, vacant FROM fence_writes WHERE what = 'claim' ORDER BY id")
        .load(conn)
        .expect("reads")
}

/// Checks that nobody but the holder ever wrote.
///
/// # Panics
/// When somebody did, with what was written.
pub fn holds(conn: &mut PgConnection) {
    let problems: Vec<Problem> = sql_query(
        "SELECT format('%s by %s (epoch %s, seq %s): %s', what, who, epoch, seq, problem) AS text
         FROM fence_writes WHERE problem IS NOT NULL ORDER BY id LIMIT 20",
    )
    .load(conn)
    .expect("reads");
    let problems: Vec<String> = problems.into_iter().map(|problem| problem.text).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Whether the lease was not given up. It may have ended meanwhile.
pub fn kept(conn: &mut PgConnection) -> bool {
    let row: Owner = sql_query("SELECT owner FROM outbox_cursors WHERE name = 'relay'")
        .get_result(conn)
        .expect("reads");
    row.owner.is_some()
}

/// Waits until a relay other than `than` holds the lease and has done so since `terms` changes of
/// hands; its name.
pub async fn successor(conn: &mut PgConnection, terms: usize) -> String {
    let mut who = String::new();
    crate::eventually("another relay takes over", async || {
        let all = self::terms(conn);
        if let Some(last) = all.get(terms..).and_then(|new| new.last()) {
            who.clone_from(&last.who);
        }
        !who.is_empty()
    })
    .await;
    who
}
