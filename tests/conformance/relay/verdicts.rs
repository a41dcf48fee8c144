//! What the broker thinks of a message.

use outbox::Draft;
use relay::Drained;
use support::events::Fact;
use transport::{Binding, Exchange, ExchangeKind, Poison, Refusal, Topology, Verdict};

use super::{Path, Store, refuse, unroutable};

async fn everything_committed_arrives_in_order_of_its_key<C: Store>() {
    let path = Path::<C>::new().await;
    path.enqueue_facts("a", 1..=20).await;
    path.enqueue_facts("b", 1..=20).await;
    assert_eq!(path.run_once().await, Drained { confirmed: 40, held: 0 });
    let published = path.published();
    for key in ["a", "b"] {
        let of_key: Vec<_> =
            published.iter().filter(|operation| operation.starts_with(key)).cloned().collect();
        assert_eq!(of_key, (1..=20).map(|n| format!("{key}-{n}")).collect::<Vec<_>>());
    }
    // And once: the cursor is behind them.
    assert_eq!(path.run_once().await, Drained { confirmed: 0, held: 0 });
    assert_eq!(path.broker.depth("all"), 40);
}

async fn a_refused_message_is_held_and_its_key_waits_behind_it<C: Store>() {
    let path = Path::<C>::new().await;
    path.broker.script(refuse("a-1", unroutable()));
    path.enqueue_facts("a", 1..=1).await;
    path.enqueue_facts("b", 1..=2).await;
    assert_eq!(path.run_once().await, Drained { confirmed: 2, held: 1 });
    // Commits after the refusal: must not overtake it.
    path.enqueue_facts("a", 2..=4).await;
    path.enqueue_facts("b", 3..=3).await;
    let drained = path.run_once().await;
    assert_eq!((drained.confirmed, drained.held), (1, 3), "{:?}", path.published());
    assert_eq!(path.held().await, [("unroutable".to_owned(), 2)]);
    path.broker.clear_script();
    path.run_once().await;
    let of_a: Vec<_> =
        path.published().into_iter().filter(|operation| operation.starts_with('a')).collect();
    assert_eq!(of_a, ["a-1", "a-2", "a-3", "a-4"]);
    // The key is free again.
    path.enqueue_facts("a", 5..=5).await;
    assert_eq!(path.run_once().await, Drained { confirmed: 1, held: 0 });
    assert!(path.held().await.is_empty());
}

async fn after_its_attempts_a_refused_message_is_dead_and_stays<C: Store>() {
    let path = Path::<C>::new().await;
    path.broker.script(refuse("keyless-1", Verdict::Refused(Refusal::Nacked)));
    path.enqueue(vec![Draft::of(&Fact::keyless(1)), Draft::of(&Fact::keyless(2))]).await;
    assert_eq!(path.run_once().await, Drained { confirmed: 1, held: 1 });
    // One run may try it more than once: its wait is a millisecond.
    for _ in 1..3 {
        path.held().await;
        path.run_once().await;
    }
    assert!(path.held().await.is_empty(), "dead ones are not due");
    path.broker.clear_script();
    let dead =
        path.count("outbox_holds WHERE state = 'dead' AND attempts = 3 AND last_error <> ''").await;
    assert_eq!(dead, 1);
    assert_eq!(path.run_once().await, Drained { confirmed: 0, held: 0 });
    assert_eq!(path.published(), ["keyless-2"]);
}

async fn a_poison_message_is_dead_at_once_and_alone<C: Store>() {
    let path = Path::<C>::new().await;
    let poison =
        Verdict::Poison(Poison::TooLarge { text: "PRECONDITION_FAILED - message size".into() });
    path.broker.script(refuse("keyless-3", poison));
    path.enqueue((1..=10).map(|n| Draft::of(&Fact::keyless(n))).collect()).await;
    assert_eq!(path.run_once().await, Drained { confirmed: 9, held: 1 });
    assert!(path.held().await.is_empty());
    assert_eq!(path.run_once().await, Drained { confirmed: 0, held: 0 });
}

async fn a_missing_exchange_holds_its_messages_until_it_is_there<C: Store>() {
    let path = Path::<C>::new().await;
    let lost = Draft::of(&Fact::keyless(1)).exchange("nowhere");
    path.enqueue(vec![lost, Draft::of(&Fact::keyless(2))]).await;
    assert_eq!(path.run_once().await, Drained { confirmed: 1, held: 1 });
    assert_eq!(path.held().await, [("exchange_missing".to_owned(), 1)]);
    let exchange = Exchange { name: "nowhere".into(), kind: ExchangeKind::Fanout };
    path.broker.declare_exchange(&exchange).await.expect("declares");
    let binding =
        Binding { exchange: "nowhere".into(), queue: "all".into(), routing_key: String::new() };
    path.broker.bind(&binding).await.expect("binds");
    path.run_once().await;
    assert_eq!(path.broker.depth("all"), 2);
}

on_every_store!(
    everything_committed_arrives_in_order_of_its_key,
    a_refused_message_is_held_and_its_key_waits_behind_it,
    after_its_attempts_a_refused_message_is_dead_and_stays,
    a_poison_message_is_dead_at_once_and_alone,
    a_missing_exchange_holds_its_messages_until_it_is_there,
);

/// SQLite keeps text that is not UTF-8: a row nothing can be sent of, whatever the constraints say.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_no_message_is_dead_and_its_key_waits() {
    let path = Path::<diesel::SqliteConnection>::new().await;
    path.enqueue_facts("a", 1..=1).await;
    path.sql(
        "INSERT INTO outbox_messages (kind, operation, ordering_key, payload)
         VALUES ('test.fact', CAST(x'ff' AS TEXT), 'a', CAST('{}' AS BLOB))",
    )
    .await;
    path.enqueue_facts("a", 2..=2).await;
    path.enqueue_facts("b", 1..=1).await;
    path.run_once().await;
    path.run_once().await;
    assert_eq!(
        path.count("outbox_holds WHERE state = 'dead' AND last_error LIKE '%UTF-8%'").await,
        1
    );
    let mut published = path.published();
    published.sort();
    assert_eq!(published, ["a-1", "b-1"]);
    assert_eq!(path.count("outbox_holds WHERE reason = 'behind'").await, 1);
    // An operator discards it: the key goes on.
    path.sql("DELETE FROM outbox_holds WHERE state = 'dead'").await;
    path.run_once().await;
    assert_eq!(path.published().last().map(String::as_str), Some("a-2"));
}
