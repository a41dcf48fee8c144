//! What is parked, whole and once.

use std::sync::Arc;

use inbox::{Ending, Reason};
use message::name;
use support::feed::{Answer, Feed};
use support::inbox::{Payment, Running, Store, crediting, parked};

use super::on_both;

on_both!(
    a_parked_message_is_kept_whole_and_counted_when_it_comes_again,
    a_conflict_names_the_first_message_and_is_counted_on_the_operation,
    messages_that_differ_anywhere_are_parked_apart,
);

async fn a_parked_message_is_kept_whole_and_counted_when_it_comes_again<C: Store>() {
    let database = C::database();
    let feed = Feed::new();
    let mut running =
        Running::start(crediting::<C>(C::pool(&database), Arc::new(feed.clone()), "q"));
    let mut numbers = Vec::new();
    for redelivery in 0..3 {
        numbers.push(feed.deliver_raw(|delivery| {
            delivery.message_id = Some("m1".into());
            delivery.kind = Some("nobody.knows".into());
            delivery.content_type = Some("text/plain".into());
            delivery.headers.insert("tenant", "t1");
            delivery.payload = bytes::Bytes::from_static(b"\xff\0bytes");
            // What the broker itself changes is no other message.
            if redelivery > 0 {
                delivery.redelivered = true;
                delivery.headers.insert("x-delivery-count", redelivery.to_string());
            }
        }));
        assert_eq!(running.next().await.ending, parked(Reason::UnknownKind));
    }
    assert!(numbers.iter().all(|number| feed.answer(*number) == Some(Answer::Ack)));
    let rows = C::parked(&mut C::connection(&database));
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.reason, row.deliveries, row.attempts), (Reason::UnknownKind, 3, 0));
    assert_eq!(row.detail, "no handler is registered for kind \"nobody.knows\"");
    assert_eq!(
        (row.message_id.as_deref(), row.kind.as_deref()),
        (Some("m1"), Some("nobody.knows"))
    );
    assert_eq!((row.exchange.as_str(), row.routing_key.as_str()), ("events", "ok"));
    assert_eq!(
        (row.content_type.as_deref(), row.headers.get("tenant")),
        (Some("text/plain"), Some("t1"))
    );
    assert_eq!(&row.payload[..], b"\xff\0bytes");
    assert_eq!(row.operation, None);
    assert!(row.last_parked_at >= row.parked_at);
    running.stop().await;
}

async fn a_conflict_names_the_first_message_and_is_counted_on_the_operation<C: Store>() {
    let database = C::database();
    let feed = Feed::new();
    let mut running =
        Running::start(crediting::<C>(C::pool(&database), Arc::new(feed.clone()), "q"));
    let (first, altered) = (Payment::new("p1", 50).message(), Payment::new("p1", 99).message());
    feed.deliver(&first);
    assert_eq!(running.next().await.ending, Ending::Applied);
    for _ in 0..2 {
        feed.deliver(&altered);
        assert_eq!(running.next().await.ending, parked(Reason::Conflict));
    }
    let conn = &mut C::connection(&database);
    let rows = C::parked(conn);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.deliveries, row.message_id.clone()), (2, Some(altered.id.to_string())));
    assert_eq!(row.operation, Some(("payment.succeeded".to_owned(), "p1".to_owned())));
    assert_eq!(row.payload, altered.payload);
    assert!(row.detail.contains(&first.id.to_string()), "{}", row.detail);
    assert!(row.detail.contains("took effect at 20") && row.detail.contains('Z'), "{}", row.detail);
    assert_eq!(C::stored(conn, "p1").map(|row| (row.duplicates, row.conflicts)), Some((0, 2)));
    assert_eq!(C::credits(conn, "a"), [50]);
    running.stop().await;
}

async fn messages_that_differ_anywhere_are_parked_apart<C: Store>() {
    let database = C::database();
    let feed = Feed::new();
    let mut running =
        Running::start(crediting::<C>(C::pool(&database), Arc::new(feed.clone()), "q"));
    let mut ids = Vec::new();
    for (header, payload) in [("1", "x"), ("2", "x"), ("1", "y")] {
        feed.deliver_raw(|delivery| {
            delivery.headers.insert("n", header);
            delivery.headers.insert(name::SOURCE, "elsewhere");
            delivery.payload = payload.into();
        });
        ids.push(running.next().await.ending);
    }
    assert_eq!(ids, [parked(Reason::UnknownKind); 3]);
    let conn = &mut C::connection(&database);
    let rows = C::parked(conn);
    assert_eq!(rows.iter().map(|row| row.deliveries).collect::<Vec<_>>(), [1, 1, 1]);
    // Paged by number.
    let rest = inbox::parked(conn, support::inbox::BILLING, rows[0].id, 1).expect("reads");
    assert_eq!(rest.iter().map(|row| row.id).collect::<Vec<_>>(), [rows[1].id]);
    running.stop().await;
}
