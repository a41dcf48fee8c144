//! A state machine behind an inbox: what its handler answers, and what the inbox makes of it.

use std::borrow::Cow;
use std::sync::Arc;

use inbox::transition::Label;
use inbox::{Ending, Failure, Inbox, ReplaySafe};
use message::{Event, Message, OperationKey};
use serde::{Deserialize, Serialize};
use support::feed::{Answer, Feed};
use support::inbox::{BILLING, Running, Store};
use support::orders::{OrderEvent, orders, standing, told};
use tokio::sync::mpsc;

use super::on_both;

on_both!(events_that_come_twice_late_and_early_have_each_their_answer);

/// An event of an order, as it travels.
#[derive(Serialize, Deserialize)]
struct Told {
    operation: String,
    order: String,
    event: String,
}

impl Event for Told {
    const KIND: &'static str = "order.told";

    fn operation(&self) -> Cow<'_, str> {
        (&self.operation).into()
    }
}

fn message(operation: &str, order: &str, event: OrderEvent) -> Message {
    let (operation, order) = (operation.to_owned(), order.to_owned());
    Message::from_event(&Told { operation, order, event: event.name().to_owned() }).expect("valid")
}

async fn events_that_come_twice_late_and_early_have_each_their_answer<C: Store>() {
    let database = C::database();
    let feed = Feed::new();
    let (tell, mut answers) = mpsc::unbounded_channel();
    let machine = orders();
    let handler = move |tx: &mut C, told: &Told, context: &inbox::Context<'_>| {
        let event = OrderEvent::named(&told.event)?;
        let decided = machine.apply(tx, &told.order, event, context)?;
        if decided.moved() {
            C::credit(tx, "moves", 1)?;
        }
        let answer = decided.answer(context);
        let (verdict, failed) = (decided.verdict.as_str(), answer.as_ref().err());
        let early = matches!(failed, Some(Failure::Early { .. }));
        let review = matches!(failed, Some(Failure::Review { .. }));
        let _ = tell.send((verdict, answer.as_ref().ok().copied(), early, review));
        answer
    };
    let inbox = Inbox::new(BILLING, C::pool(&database), Arc::new(feed.clone()), "q");
    let mut running = Running::start(inbox.on(ReplaySafe, handler));

    let (order, authorized) = ("order_456", message("pay_1", "order_456", OrderEvent::Authorize));
    let other = message("pay_2", order, OrderEvent::Authorize);
    let confirmed = message("confirm_1", order, OrderEvent::Confirm);
    let late = message("pay_3", order, OrderEvent::Authorize);
    for (told, answer) in [
        (&authorized, ("to", Some("payment_authorized"), false, false)),
        // Another operation that tells the same.
        (&other, ("duplicate", Some("payment_authorized"), false, false)),
        (&confirmed, ("to", Some("confirmed"), false, false)),
        (&late, ("stale", Some("confirmed"), false, false)),
    ] {
        let number = feed.deliver(told);
        let ending = running.next().await.ending;
        assert_eq!(answers.recv().await, Some(answer));
        assert!(!matches!(ending, Ending::Parked(_)), "{answer:?}: {ending:?}");
        assert_eq!(feed.answer(number), Some(Answer::Ack));
    }
    // The same message again is the inbox's to answer; the machine does not hear of it.
    feed.deliver(&authorized);
    assert_eq!(running.next().await.ending, Ending::Duplicate);
    let unexpected = message("cancel_1", order, OrderEvent::Cancel);
    let early = message("confirm_2", "order_789", OrderEvent::Confirm);
    for (told, answer) in
        [(unexpected, ("review", None, false, true)), (early, ("early", None, true, false))]
    {
        let number = feed.deliver(&told);
        let ending = running.next().await.ending;
        assert_eq!(answers.recv().await, Some(answer));
        assert!(matches!(ending, Ending::Parked(_)), "{answer:?}: {ending:?}");
        assert_eq!(feed.answer(number), Some(Answer::Ack));
    }
    running.stop().await;

    let conn = &mut C::connection(&database);
    assert_eq!(standing(conn, "order_789"), None);
    assert_eq!(standing(conn, "order_456"), Some(("confirmed".to_owned(), 2)));
    assert_eq!(C::credits(conn, "moves"), [1, 1]);
    let lines: Vec<_> = told(conn, "order_456")
        .into_iter()
        .map(|line| (line.verdict, line.consumer, line.operation.map(|(_, id)| id)))
        .collect();
    let line = |verdict: &str, operation: &str| {
        (verdict.to_owned(), Some("billing".to_owned()), Some(operation.to_owned()))
    };
    assert_eq!(
        lines,
        [
            line("to", "pay_1"),
            line("duplicate", "pay_2"),
            line("to", "confirm_1"),
            line("stale", "pay_3")
        ]
    );
    let first = told(conn, "order_456").remove(0);
    assert_eq!(first.message_id, Some(authorized.id.to_string()));
    let key = OperationKey::new(Told::KIND, "pay_1").expect("valid");
    let stored = inbox::operation(conn, BILLING, &key).expect("reads").expect("applied");
    assert_eq!(stored.result.as_deref(), Some("\"payment_authorized\""));
    let details: Vec<_> = C::parked(conn).into_iter().map(|parked| parked.detail).collect();
    let early = "order order_789: order.confirmed came before its time in state pending_payment";
    let review = "order order_456: order.cancelled makes no sense in state confirmed";
    assert_eq!(details, [review, early]);
}
