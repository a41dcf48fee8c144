//! What the broker thinks of a message.

use std::time::Duration;

use outbox::Draft;
use relay::{Backoff, Circuit, DeadKey, Drained, RelayError};
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
    let held = path.held().await;
    assert!(held[0].0 == "unroutable" && held[0].1 >= 2, "{held:?}");
    assert!(held[1..].iter().all(|held| *held == ("behind".to_owned(), 0)), "{held:?}");
    assert_eq!(held.len(), 4);
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

async fn nothing_of_a_key_overtakes_one_that_is_refused_beside_it<C: Store>() {
    let path = Path::<C>::new().await;
    path.broker.script(refuse("a-2", unroutable()));
    // All of it in one chunk.
    path.enqueue_facts("a", 1..=4).await;
    path.enqueue_facts("b", 1..=3).await;
    path.run_once().await;
    let of_a = |path: &Path<C>| -> Vec<String> {
        path.published().into_iter().filter(|operation| operation.starts_with('a')).collect()
    };
    assert_eq!(of_a(&path), ["a-1"]);
    path.broker.clear_script();
    path.held().await;
    path.run_once().await;
    assert_eq!(of_a(&path), ["a-1", "a-2", "a-3", "a-4"]);
}

async fn a_dead_message_is_passed_by_where_that_is_wanted<C: Store>() {
    let path = Path::<C>::new().await;
    path.broker.script(refuse("a-1", unroutable()));
    path.enqueue_facts("a", 1..=3).await;
    let mut settings = Path::<C>::settings();
    settings.max_attempts = 1;
    settings.dead_key = DeadKey::Skip;
    let relay = path.relay_with(settings);
    support::bounded(relay.run_once()).await.expect("drains");
    support::bounded(relay.run_once()).await.expect("drains");
    assert_eq!(path.published(), ["a-2", "a-3"]);
    assert_eq!(path.count("outbox_holds WHERE state = 'dead'").await, 1);
    assert_eq!(path.count("outbox_holds").await, 1);
}

async fn delayed_messages_of_a_key_come_in_order_of_their_time<C: Store>() {
    let path = Path::<C>::new().await;
    let hour = Duration::from_secs(3600);
    path.enqueue(vec![
        Draft::of(&Fact::of("a", 1)).deliver_after(3 * hour),
        Draft::of(&Fact::of("a", 2)).deliver_after(hour),
        Draft::of(&Fact::of("a", 3)).deliver_after(2 * hour),
    ])
    .await;
    path.run_once().await;
    assert_eq!(path.published(), Vec::<String>::new());
    path.sql(
        "UPDATE outbox_holds SET not_before = (SELECT deliver_after FROM outbox_messages m WHERE m.seq = outbox_holds.seq)",
    )
    .await;
    // Four hours later.
    path.sql(C::EARLIER).await;
    path.run_once().await;
    assert_eq!(path.published(), ["a-2", "a-3", "a-1"]);
}

async fn most_of_the_traffic_refused_stops_the_rest_and_lets_it_go_again<C: Store>() {
    let path = Path::<C>::new().await;
    path.broker.script(|_| Some(unroutable()));
    let facts = |range: std::ops::RangeInclusive<i64>| range.map(Fact::keyless);
    path.enqueue(facts(1..=400).map(|fact| Draft::of(&fact)).collect()).await;
    let mut settings = Path::<C>::settings();
    settings.max_attempts = 1_000;
    settings.refused_sample = 20;
    settings.circuit_pause =
        Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(1) };
    let relay = path.relay_with(settings);
    let status = relay.status();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(async move { relay.run(async { drop(stopped.await) }).await });
    support::eventually("the circuit is open", async || {
        status.report().circuit == Circuit::OpenRefused
    })
    .await;
    let held = path.count("outbox_holds").await;
    assert!(held < 400, "{held} of 400 were held before it opened");
    path.broker.clear_script();
    support::eventually("all has arrived", async || path.broker.depth("all") == 400).await;
    support::eventually("the circuit is closed", async || {
        status.report().circuit == Circuit::Closed
    })
    .await;
    stop.send(()).expect("runs");
    support::bounded(running).await.expect("ends").expect("stops");
}

async fn too_many_holds_stop_the_rest_until_there_are_fewer<C: Store>() {
    let path = Path::<C>::new().await;
    path.broker.script(|_| Some(unroutable()));
    // One key with many behind its first one counts as one.
    path.enqueue_facts("a", 1..=20).await;
    path.enqueue((1..=40).map(|n| Draft::of(&Fact::keyless(n))).collect()).await;
    let mut settings = Path::<C>::settings();
    settings.max_attempts = 1_000;
    settings.max_holds = 10;
    settings.refused_share = 1.0;
    let relay = path.relay_with(settings);
    let status = relay.status();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(async move { relay.run(async { drop(stopped.await) }).await });
    support::eventually("the circuit is open", async || {
        status.report().circuit == Circuit::OpenHolds
    })
    .await;
    // The circuit opens on the verdicts, which are recorded after that.
    support::eventually("what stopped it is recorded", async || {
        path.count("outbox_holds WHERE reason <> 'behind'").await >= 10
    })
    .await;
    let held = path.count("outbox_holds WHERE reason <> 'behind'").await;
    assert!((10..=10 + 3 * 7).contains(&held), "{held}: bounded by what was in flight");
    path.broker.clear_script();
    support::eventually("all has arrived", async || path.broker.depth("all") == 60).await;
    let of_a: Vec<String> =
        path.published().into_iter().filter(|operation| operation.starts_with('a')).collect();
    assert_eq!(of_a, (1..=20).map(|n| format!("a-{n}")).collect::<Vec<_>>());
    stop.send(()).expect("runs");
    support::bounded(running).await.expect("ends").expect("stops");
}

async fn an_operator_s_discard_counts_and_a_drain_does_not_wait_for_a_person<C: Store>() {
    let path = Path::<C>::new().await;
    path.broker.script(|_| Some(unroutable()));
    path.enqueue((1..=12).map(|n| Draft::of(&Fact::keyless(n))).collect()).await;
    let mut settings = Path::<C>::settings();
    settings.max_attempts = 1;
    settings.max_holds = 10;
    settings.refused_share = 1.0;
    let relay = path.relay_with(settings.clone());
    let error = support::bounded(async {
        // Until all that is to be held is held.
        loop {
            if let Err(error) = relay.run_once().await {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(error, RelayError::CircuitOpen { .. }), "{error}");

    path.broker.clear_script();
    path.enqueue(vec![Draft::of(&Fact::keyless(13))]).await;
    let relay = path.relay_with(settings);
    let status = relay.status();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(async move { relay.run(async { drop(stopped.await) }).await });
    support::eventually("the circuit is open", async || {
        status.report().circuit == Circuit::OpenHolds
    })
    .await;
    path.sql("DELETE FROM outbox_holds").await;
    support::eventually("the last one has arrived", async || {
        path.published().last().map(String::as_str) == Some("keyless-13")
    })
    .await;
    stop.send(()).expect("runs");
    support::bounded(running).await.expect("ends").expect("stops");
}

async fn after_its_attempts_a_refused_message_is_dead_and_stays<C: Store>() {
    let path = Path::<C>::new().await;
    path.broker.script(refuse("keyless-1", Verdict::Refused(Refusal::Nacked)));
    path.enqueue(vec![Draft::of(&Fact::keyless(1)), Draft::of(&Fact::keyless(2))]).await;
    let mut settings = Path::<C>::settings();
    settings.max_attempts = 3;
    let relay = path.relay_with(settings);
    let run = async || support::bounded(relay.run_once()).await.expect("drains");
    assert_eq!(run().await, Drained { confirmed: 1, held: 1 });
    // One run may try it more than once.
    for _ in 1..3 {
        path.held().await;
        run().await;
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
    let held = path.held().await;
    assert!(matches!(&held[..], [(reason, _)] if reason == "exchange_missing"), "{held:?}");
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
    nothing_of_a_key_overtakes_one_that_is_refused_beside_it,
    a_dead_message_is_passed_by_where_that_is_wanted,
    delayed_messages_of_a_key_come_in_order_of_their_time,
    most_of_the_traffic_refused_stops_the_rest_and_lets_it_go_again,
    too_many_holds_stop_the_rest_until_there_are_fewer,
    an_operator_s_discard_counts_and_a_drain_does_not_wait_for_a_person,
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
