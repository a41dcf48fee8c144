//! The diesel-async front writes the same rows under the same conditions.

use diesel::result::Error;
use diesel_async::{AsyncConnection, AsyncPgConnection};
use outbox::reader::LogStore;
use outbox::{Draft, EnqueueError};
use support::database::Database;
use support::events::Fact;

use super::{ALL, LIMIT, TTL, claim, numbers};

#[tokio::test]
async fn it_enqueues_in_the_transaction_or_not_at_all() {
    let database = Database::postgres();
    let mut conn = AsyncPgConnection::establish(&database.url).await.expect("connects");

    let outside = outbox::diesel_async::enqueue(&mut conn, &Fact::keyless(1)).await;
    assert!(matches!(outside, Err(EnqueueError::NoTransaction)), "{outside:?}");

    let rolled_back: Result<(), Error> = conn
        .transaction(async |tx| {
            outbox::diesel_async::enqueue(tx, &Fact::keyless(2)).await?;
            Err(Error::RollbackTransaction)
        })
        .await;
    assert!(rolled_back.is_err());

    let ids = conn
        .transaction(async |tx| {
            let one = outbox::diesel_async::enqueue(tx, &Fact::keyless(3)).await?;
            let drafts = [
                Draft::of(&Fact::of("k", 4)).serialized(),
                Draft::of(&Fact::of("k", 5)).header("a", "b"),
            ];
            let mut ids = outbox::diesel_async::enqueue_all(tx, drafts).await?;
            ids.insert(0, one);
            Ok::<_, EnqueueError>(ids)
        })
        .await
        .expect("commits");

    let again: Result<_, EnqueueError> = conn
        .transaction(async |tx| {
            outbox::diesel_async::enqueue_all(tx, [Draft::of(&Fact::keyless(3)).id(ids[0])]).await
        })
        .await;
    assert!(
        matches!(again, Err(EnqueueError::AlreadyEnqueued { id }) if id == ids[0]),
        "{again:?}"
    );
    let invalid: Result<_, EnqueueError> = conn
        .transaction(async |tx| {
            outbox::diesel_async::enqueue_all(tx, [Draft::of(&Fact::keyless(6)).exchange("")]).await
        })
        .await;
    assert!(matches!(invalid, Err(EnqueueError::Invalid(_))), "{invalid:?}");

    tokio::task::spawn_blocking(move || {
        let mut conn = database.pg();
        let (_, position) = claim(&mut conn, "me", TTL);
        let chunk = conn.read(&position, &ALL, LIMIT).expect("reads");
        assert_eq!(numbers(&chunk), [3, 4, 5]);
        assert_eq!(chunk.entries.iter().map(|entry| entry.message.id).collect::<Vec<_>>(), ids);
        assert_eq!(chunk.entries[2].message.headers.get("a"), Some("b"));
    })
    .await
    .expect("reads");
}
