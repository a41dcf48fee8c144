//! A state machine, one event after the other.

use diesel::result::Error;
use inbox::Consumer;
use inbox::transition::{self, Cause, Machine, TransitionError, Verdict};
use message::OperationKey;
use support::inbox::Store;
use support::orders::OrderEvent::{self, Authorize, Cancel, Confirm};
use support::orders::OrderState::{self, Cancelled, Confirmed, PaymentAuthorized, PendingPayment};
use support::orders::{orders, standing, tell, told, verdicts};

use super::on_both;

on_both!(
    every_event_has_its_verdict_in_every_state,
    the_history_tells_everything_that_was_decided,
    the_history_is_read_in_pages,
    a_rollback_takes_move_and_history_along,
    outside_a_transaction_it_refuses_and_moves_nothing,
    an_entity_s_name_that_breaks_the_rules_reaches_no_database,
    machines_and_entities_do_not_meet,
    a_state_that_this_build_does_not_know_is_named_and_kept,
    missing_tables_are_named,
);

/// What leads to a state, what an event means there, and where it stands afterwards.
type Cell = (&'static [OrderEvent], OrderEvent, Verdict<OrderState>, OrderState);

const CELLS: [Cell; 12] = [
    (&[], Authorize, Verdict::To(PaymentAuthorized), PaymentAuthorized),
    (&[], Confirm, Verdict::Early, PendingPayment),
    (&[], Cancel, Verdict::To(Cancelled), Cancelled),
    (&[Authorize], Authorize, Verdict::Duplicate, PaymentAuthorized),
    (&[Authorize], Confirm, Verdict::To(Confirmed), Confirmed),
    (&[Authorize], Cancel, Verdict::To(Cancelled), Cancelled),
    (&[Authorize, Confirm], Authorize, Verdict::Stale, Confirmed),
    (&[Authorize, Confirm], Confirm, Verdict::Duplicate, Confirmed),
    (&[Authorize, Confirm], Cancel, Verdict::Review, Confirmed),
    (&[Authorize, Cancel], Authorize, Verdict::Review, Cancelled),
    (&[Authorize, Cancel], Confirm, Verdict::Review, Cancelled),
    (&[Authorize, Cancel], Cancel, Verdict::Duplicate, Cancelled),
];

async fn every_event_has_its_verdict_in_every_state<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    for (number, (before, event, verdict, after)) in CELLS.into_iter().enumerate() {
        let order = &format!("o{number}");
        for event in before {
            assert!(tell(conn, order, *event).moved(), "{before:?} {event:?}");
        }
        let moves = i64::try_from(before.len()).expect("few");
        let decided = tell(conn, order, event);
        let cell = format!("{before:?} then {event:?}");
        assert_eq!((decided.verdict, decided.state()), (verdict, Some(after)), "{cell}");
        assert_eq!(decided.entity, *order);

        let moved = matches!(verdict, Verdict::To(_));
        assert_eq!(decided.moved(), moved, "{cell}");
        let version = moves + i64::from(moved);
        let expected = (version > 0).then(|| (name(after), version));
        assert_eq!(standing(conn, order), expected, "{cell}");
        let history = told(conn, order);
        match verdict {
            // Nothing is left of these but the parked message.
            Verdict::Early | Verdict::Review => assert_eq!(history.len(), before.len(), "{cell}"),
            Verdict::To(_) | Verdict::Duplicate | Verdict::Stale => {
                assert_eq!(history.len(), before.len() + 1, "{cell}");
                let last = history.last().expect("just written");
                assert_eq!(last.verdict, verdict.as_str(), "{cell}");
                assert_eq!((&last.to, last.version), (&name(after), Some(version)), "{cell}");
            }
        }
    }
}

fn name(state: OrderState) -> String {
    transition::Label::name(state).to_owned()
}

async fn the_history_tells_everything_that_was_decided<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    let operation = OperationKey::new("payment.authorized", "pay_123").expect("valid");
    let cause =
        Cause::unknown().consumer(Consumer("orders")).operation(&operation).message_id("evt_001\0");
    for (event, cause) in [
        (Authorize, cause),
        (Confirm, Cause::unknown()),
        (Authorize, Cause::unknown().message_id("evt_002")),
    ] {
        conn.write(|tx| orders().apply(tx, "order_456", event, cause).map(drop)).expect("judged");
    }
    let history = told(conn, "order_456");
    let lines: Vec<_> = history
        .iter()
        .map(|line| {
            let what = (line.version, &*line.event, &*line.from, &*line.to, &*line.verdict);
            (what, line.consumer.as_deref(), line.operation.clone(), line.message_id.as_deref())
        })
        .collect();
    let (pending, authorized) = ("pending_payment", "payment_authorized");
    let key = Some(("payment.authorized".to_owned(), "pay_123".to_owned()));
    let first = (Some(1), "payment.authorized", pending, authorized, "to");
    let second = (Some(2), "order.confirmed", authorized, "confirmed", "to");
    let third = (Some(2), "payment.authorized", "confirmed", "confirmed", "stale");
    assert_eq!(
        lines,
        [
            (first, Some("orders"), key, Some("evt_001\u{2400}")),
            (second, None, None, None),
            (third, None, None, Some("evt_002")),
        ]
    );
    assert!(history.is_sorted_by(|a, b| a.id < b.id && a.at <= b.at));
    let standing = transition::state(conn, "order", "order_456").expect("reads").expect("moved");
    assert!(history[0].at <= standing.changed_at && standing.changed_at <= history[1].at);
}

async fn the_history_is_read_in_pages<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    for _ in 0..5 {
        let _ = tell(conn, "o1", Authorize);
        let _ = tell(conn, "o2", Authorize);
    }
    let all = told(conn, "o1");
    let (mut paged, mut after) = (Vec::new(), 0);
    for lines in [2, 2, 1, 0] {
        let page = transition::history(conn, "order", "o1", after, 2).expect("reads");
        assert_eq!(page.len(), lines);
        after = page.last().map_or(after, |last| last.id);
        paged.extend(page);
    }
    assert_eq!(paged, all);
}

async fn a_rollback_takes_move_and_history_along<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    let _ = tell(conn, "o1", Authorize);
    for order in ["o1", "o2"] {
        let rolled_back: Result<(), Error> = conn.write(|tx| {
            let event = if order == "o1" { Confirm } else { Authorize };
            let decided = orders().apply(tx, order, event, Cause::unknown())?;
            assert!(decided.moved());
            Err(Error::RollbackTransaction)
        });
        assert_eq!(rolled_back, Err(Error::RollbackTransaction));
    }
    assert_eq!(standing(conn, "o1"), Some((name(PaymentAuthorized), 1)));
    assert_eq!(verdicts(conn, "o1"), ["to"]);
    assert_eq!((standing(conn, "o2"), verdicts(conn, "o2")), (None, vec![]));
    // Both can still be moved.
    assert_eq!(tell(conn, "o1", Confirm).verdict, Verdict::To(Confirmed));
    assert_eq!(tell(conn, "o2", Authorize).verdict, Verdict::To(PaymentAuthorized));
}

async fn outside_a_transaction_it_refuses_and_moves_nothing<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    let refused = orders().apply(conn, "o1", Authorize, Cause::unknown());
    assert!(matches!(refused, Err(TransitionError::NoTransaction)), "{refused:?}");
    assert_eq!((standing(conn, "o1"), verdicts(conn, "o1")), (None, vec![]));
}

async fn an_entity_s_name_that_breaks_the_rules_reaches_no_database<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    for entity in ["", "nul\0", &"o".repeat(256)] {
        let refused = conn.write(|tx| {
            Ok::<_, Error>(orders().apply(tx, entity, Authorize, Cause::unknown()).map(drop))
        });
        let refused = refused.expect("the transaction is fine");
        assert!(matches!(refused, Err(TransitionError::Invalid(_))), "{refused:?}");
    }
}

async fn machines_and_entities_do_not_meet<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    let rules = [
        (PendingPayment, Authorize, Verdict::To(PaymentAuthorized)),
        (PaymentAuthorized, Confirm, Verdict::To(Confirmed)),
        (PendingPayment, Cancel, Verdict::To(Cancelled)),
    ];
    let other = Machine::new("parcel", PendingPayment, rules, Verdict::Review).expect("valid");
    let _ = tell(conn, "o1", Authorize);
    let decided = conn.write(|tx| other.apply(tx, "o1", Authorize, Cause::unknown()));
    assert_eq!(decided.expect("judged").verdict, Verdict::To(PaymentAuthorized));
    assert_eq!(tell(conn, "o2", Authorize).verdict, Verdict::To(PaymentAuthorized));
    assert_eq!(tell(conn, "o1", Confirm).verdict, Verdict::To(Confirmed));
    let parcel = transition::state(conn, "parcel", "o1").expect("reads").expect("moved");
    assert_eq!((parcel.state, parcel.version), (name(PaymentAuthorized), 1));
    assert_eq!(verdicts(conn, "o1"), ["to", "to"]);
}

async fn a_state_that_this_build_does_not_know_is_named_and_kept<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    let _ = tell(conn, "o1", Authorize);
    conn.batch_execute("UPDATE inbox_states SET state = 'refunded'").expect("a newer release");
    let failed = conn.write(|tx| orders().apply(tx, "o1", Confirm, Cause::unknown()));
    let error = failed.expect_err("unknown");
    assert!(matches!(error, TransitionError::UnknownState(_)), "{error}");
    assert!(error.to_string().contains("\"refunded\""), "{error}");
    assert_eq!(standing(conn, "o1"), Some(("refunded".to_owned(), 1)));
}

async fn missing_tables_are_named<C: Store>() {
    for table in ["inbox_states", "inbox_transitions"] {
        let database = C::database();
        let conn = &mut C::connection(&database);
        conn.batch_execute(&format!("DROP TABLE {table}")).expect("drops");
        let failed = conn.write(|tx| orders().apply(tx, "o1", Authorize, Cause::unknown()));
        let error = failed.expect_err("no table");
        assert!(
            matches!(error, TransitionError::MissingTable(_))
                && error.to_string().contains("relay migrate"),
            "{error}"
        );
    }
}
