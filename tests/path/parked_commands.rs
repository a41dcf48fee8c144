//! What an operator decides about parked messages, with the real program, on both databases.

use std::sync::Arc;

use diesel::{PgConnection, SqliteConnection};
use inbox::{Ending, Failure, Inbox, Reason, ReplaySafe, Settings};
use serde_json::Value;
use support::commands::{done, json, refused, says};
use support::database::Database;
use support::feed::Feed;
use support::inbox::{BILLING, Payment, Running, Store, parked};

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres() {
    support::bounded(decided::<PgConnection>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    support::bounded(decided::<SqliteConnection>()).await;
}

/// A consumer that wants payments of less than a euro reviewed, unless they are sound.
fn billing<C: Store>(database: &Database, feed: &Feed, sound: bool) -> Running {
    let mut settings = Settings::default();
    settings.retry_poll = std::time::Duration::from_millis(20);
    let builder = Inbox::new(BILLING, C::pool(database), Arc::new(feed.clone()), "q").on(
        ReplaySafe,
        move |tx: &mut C, payment: &Payment, _| {
            if payment.cents < 100 && !sound {
                return Err(Failure::review("an odd amount"));
            }
            Ok(C::credit(tx, &payment.account, payment.cents)?)
        },
    );
    Running::start(builder.settings(settings))
}

async fn decided<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    says(&done(&database, &["parked", "list"]), &["no parked messages fit"]);
    says(&done(&database, &["parked", "counts"]), &["nothing is parked"]);
    let mut running = billing::<C>(&database, &feed, false);
    for payment in ["p1", "p2", "p3"] {
        let mut message = Payment::new(payment, 7).message();
        message.ordering_key = Some("secret-account".to_owned());
        feed.deliver(&message);
        assert_eq!(running.next().await.ending, parked(Reason::Review));
    }
    running.stop().await;

    says(&done(&database, &["parked", "list"]), &["billing", "for a person", "p1", "p3", "odd"]);
    let list = json(&database, &["parked", "list", "--json", "--consumer", "billing"]);
    let ids: Vec<String> =
        list.as_array().expect("a list").iter().map(|row| row["id"].to_string()).collect();
    let [first, second, third] = &ids[..] else { panic!("{list}") };
    assert_eq!(
        (&list[0]["state"], &list[0]["reason"], &list[0]["operation"]),
        (&"review".into(), &"review".into(), &"p1".into())
    );
    says(&done(&database, &["parked", "list", "--limit", "1"]), &["--after", first]);
    says(&done(&database, &["parked", "list", "--parked-for", "conflict"]), &["no parked"]);
    says(&refused(&database, &["parked", "list", "--parked-for", "bordom"]), &["conflict"]);
    says(&refused(&database, &["parked", "list", "--state", "dead"]), &["review"]);
    let counts = json(&database, &["parked", "counts", "--json"]);
    assert_eq!((&counts[0]["count"], counts.as_array().map(Vec::len)), (&3.into(), Some(1)));

    let shown = done(&database, &["parked", "show", first]);
    says(&shown, &["an odd amount", "payment.succeeded p1", "--payload"]);
    assert!(!shown.contains("cents"), "the body stays hidden: {shown}");
    let shown = json(&database, &["parked", "show", first, "--json"]);
    assert_eq!((&shown["payload"], &shown["headers"]), (&Value::Null, &Value::Null));
    says(&done(&database, &["parked", "show", first, "--payload"]), &["\"cents\":7", "header "]);
    let shown = json(&database, &["parked", "show", first, "--payload", "--json"]);
    says(shown["payload"]["text"].as_str().expect("a text"), &["\"cents\":7"]);
    says(&refused(&database, &["parked", "show", "4711"]), &["4711", "decided about meanwhile"]);

    let retry = ["parked", "retry", first.as_str(), "--reason", "asked the bank"];
    says(&refused(&database, &["parked", "retry", first]), &["--reason"]);
    says(&refused(&database, &["parked", "retry", "--reason", "r"]), &["--consumer", "--all"]);
    says(&done(&database, &[&retry[..], &["--dry-run"]].concat()), &["1 parked messages would be"]);
    says(&done(&database, &retry), &["1 parked messages were made due now"]);
    running_applies::<C>(&database, 1).await;
    says(&refused(&database, &retry), &["no parked message has the number"]);

    says(&refused(&database, &["parked", "discard", second, "--reason", "r"]), &["--yes"]);
    let discard = ["parked", "discard", second, "--reason", "refunded by hand", "--yes"];
    says(&done(&database, &discard), &["1 parked messages were discarded"]);
    let rest = ["parked", "retry", "--consumer", "billing", "--reason", "all of them"];
    says(&done(&database, &rest), &["1 parked messages were made due now"]);
    running_applies::<C>(&database, 1).await;
    assert_eq!(C::credits(&mut C::connection(&database), "a"), [7, 7]);
    says(&done(&database, &["parked", "counts"]), &["nothing is parked"]);

    let audit = json(&database, &["audit", "--json"]);
    let actions: Vec<_> =
        audit.as_array().expect("a list").iter().map(|line| &line["action"]).collect();
    assert_eq!(actions, ["parked.retry", "parked.discard", "parked.retry"]);
    assert_eq!(
        (&audit[1]["actor"], &audit[1]["reason"], &audit[1]["consumer"]),
        (&"anna@desk".into(), &"refunded by hand".into(), &"billing".into())
    );
    assert_eq!(audit[0]["detail"]["id"].to_string(), *third);
    let text = done(&database, &["audit"]);
    says(&text, &["parked.discard", "billing", "refunded by hand"]);
    assert!(!text.contains("cents"), "no body: {text}");
}

/// Starts the consumer for as long as it takes to apply what is due.
async fn running_applies<C: Store>(database: &Database, count: usize) {
    let mut running = billing::<C>(database, &Feed::new(), true);
    assert_eq!(running.endings(count).await, vec![Ending::Applied; count]);
    running.stop().await;
}
