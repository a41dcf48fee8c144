//! A writer in the same database, one in another, a prepared transaction and a REPEATABLE READ
//! snapshot stay open all the time: what others commit is published at once, and what they wrote
//! follows when they commit.

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use support::database::Database;
use support::stream::Stream;

#[tokio::test(flavor = "multi_thread")]
async fn however_long_they_stay_open() {
    let (database, other) = (Database::postgres(), Database::empty_postgres());
    let stream = Stream::open().await;
    let mut conn = database.pg();
    let (mut writer, mut preparer, mut reader) = (database.pg(), database.pg(), database.pg());
    let mut foreign = other.pg();
    AnsiTransactionManager::begin_transaction(&mut writer).expect("begins");
    stream.try_enqueue(&mut writer, &[1]).expect("inserts");
    AnsiTransactionManager::begin_transaction(&mut preparer).expect("begins");
    stream.try_enqueue(&mut preparer, &[2]).expect("inserts");
    let prepared = format!("open-{}", stream.queue);
    preparer.batch_execute(&format!("PREPARE TRANSACTION '{prepared}'")).expect("prepares");
    foreign.batch_execute("BEGIN; CREATE TABLE written (id int)").expect("writes");
    reader
        .batch_execute(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM outbox_messages",
        )
        .expect("reads");

    let mut relay = stream.relay(&database.url);
    let others: Vec<i64> = (100..3_000).filter(|number| number % 10 > 2).collect();
    for some in others.chunks(500) {
        stream.enqueue(&mut conn, some.iter().copied());
        Stream::drained(&mut conn).await;
    }
    stream.arrived().await.are(others, 0);
    AnsiTransactionManager::commit_transaction(&mut writer).expect("commits");
    conn.batch_execute(&format!("COMMIT PREPARED '{prepared}'")).expect("commits");
    stream.enqueue(&mut conn, [3_001, 3_002]);
    Stream::drained(&mut conn).await;
    let _ = Stream::stop(&mut relay);
    stream.arrived().await.are([1, 2, 3_001, 3_002], 0);
    stream.close().await;
}
