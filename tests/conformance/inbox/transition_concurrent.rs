//! Two consumers with one entity: never do both move it.

use std::sync::{Barrier, mpsc};
use std::thread;

use db::{Class, classify};
use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::Error;
use inbox::transition::{self, Cause, Decided, Machine, TransitionError, Verdict, labels};
use support::database::Database;
use support::inbox::Store;
use support::orders::OrderEvent::{self, Authorize, Cancel, Confirm};
use support::orders::OrderState::{self, Cancelled, Confirmed, PaymentAuthorized};
use support::orders::{OwnOrders, orders, standing, tell, verdicts};

use super::on_both;

on_both!(
    the_first_move_is_made_once,
    a_later_move_is_made_once,
    a_move_in_a_table_of_the_host_s_is_made_once,
    of_two_events_one_moves_and_the_other_is_judged_anew,
    after_a_rollback_the_one_that_waited_moves,
    moves_to_the_same_state_are_counted_one_by_one,
    a_state_set_by_hand_is_not_overwritten,
    of_many_consumers_each_event_moves_one,
);

type Judged = Result<Decided<OrderState, OrderEvent>, TransitionError>;

/// Runs `second` in a transaction while `first` has done its work in another one, and ends that only
/// when the second is known to wait for it.
fn second_while_first<C: Store, T: Send>(
    database: &Database,
    commit: bool,
    first: impl FnOnce(&mut C),
    second: impl FnOnce(&mut C) -> T + Send,
) -> T {
    let mut one = C::connection(database);
    let mut other = C::connection(database);
    let (about_to, begun) = mpsc::channel();
    thread::scope(|scope| {
        let mut waiting = None;
        let ended: Result<(), Error> = one.write(|tx| {
            first(tx);
            waiting = Some(scope.spawn(move || {
                about_to.send(()).expect("somebody listens");
                other.write(|tx| Ok::<_, Error>(second(tx))).expect("commits")
            }));
            begun.recv().expect("it begins");
            database.until_one_waits();
            if commit { Ok(()) } else { Err(Error::RollbackTransaction) }
        });
        assert_eq!(ended.is_ok(), commit);
        waiting.expect("was started").join().expect("no panic")
    })
}

fn apply<C: Store>(tx: &mut C, event: OrderEvent) -> Judged {
    orders().apply(tx, "o1", event, Cause::unknown())
}

fn verdict(judged: Judged) -> Verdict<OrderState> {
    judged.expect("judged").verdict
}

/// The first event moves the order and the second one meets what it left.
fn race<C: Store>(
    database: &Database,
    first: (OrderEvent, Verdict<OrderState>),
    second: (OrderEvent, Verdict<OrderState>),
) {
    let met = second_while_first::<C, _>(
        database,
        true,
        |tx| assert_eq!(verdict(apply(tx, first.0)), first.1),
        |tx| verdict(apply(tx, second.0)),
    );
    assert_eq!(met, second.1, "{second:?} after {first:?}");
}

async fn the_first_move_is_made_once<C: Store>() {
    let database = C::database();
    let moved = Verdict::To(PaymentAuthorized);
    race::<C>(&database, (Authorize, moved), (Authorize, Verdict::Duplicate));
    let conn = &mut C::connection(&database);
    assert_eq!(standing(conn, "o1"), Some(("payment_authorized".to_owned(), 1)));
    assert_eq!(verdicts(conn, "o1"), ["to", "duplicate"]);
}

async fn a_later_move_is_made_once<C: Store>() {
    let database = C::database();
    let _ = tell(&mut C::connection(&database), "o1", Authorize);
    race::<C>(&database, (Confirm, Verdict::To(Confirmed)), (Confirm, Verdict::Duplicate));
    let conn = &mut C::connection(&database);
    assert_eq!(standing(conn, "o1"), Some(("confirmed".to_owned(), 2)));
    assert_eq!(verdicts(conn, "o1"), ["to", "to", "duplicate"]);
}

async fn a_move_in_a_table_of_the_host_s_is_made_once<C: OwnOrders>() {
    let database = C::with_orders();
    C::place(&mut C::connection(&database), "o1");
    let authorize =
        |tx: &mut C| verdict(orders().apply_to(tx, C::order("o1"), Authorize, Cause::unknown()));
    let met = second_while_first::<C, _>(
        &database,
        true,
        |tx| assert_eq!(authorize(tx), Verdict::To(PaymentAuthorized)),
        authorize,
    );
    assert_eq!(met, Verdict::Duplicate);
    assert_eq!(verdicts(&mut C::connection(&database), "o1"), ["to", "duplicate"]);
}

async fn of_two_events_one_moves_and_the_other_is_judged_anew<C: Store>() {
    for (first, second) in [
        ((Confirm, Verdict::To(Confirmed)), (Cancel, Verdict::Review)),
        ((Cancel, Verdict::To(Cancelled)), (Confirm, Verdict::Review)),
    ] {
        let database = C::database();
        let conn = &mut C::connection(&database);
        let _ = tell(conn, "o1", Authorize);
        race::<C>(&database, first, second);
        assert_eq!(verdicts(conn, "o1"), ["to", "to"]);
    }
    // A later move in between may also make way for the next one.
    let database = C::database();
    let moved = (Authorize, Verdict::To(PaymentAuthorized));
    race::<C>(&database, moved, (Cancel, Verdict::To(Cancelled)));
    assert_eq!(standing(&mut C::connection(&database), "o1"), Some(("cancelled".to_owned(), 2)));
}

async fn after_a_rollback_the_one_that_waited_moves<C: Store>() {
    for (before, event) in [(None, Authorize), (Some(Authorize), Confirm)] {
        let database = C::database();
        let conn = &mut C::connection(&database);
        if let Some(before) = before {
            let _ = tell(conn, "o1", before);
        }
        let moved = second_while_first::<C, _>(
            &database,
            false,
            |tx| assert!(apply(tx, event).expect("judged").moved()),
            |tx| apply(tx, event).expect("judged").moved(),
        );
        assert!(moved, "{event:?}");
        assert_eq!(verdicts(conn, "o1").len(), 1 + usize::from(before.is_some()));
    }
}

labels! {
    enum Counter { Counting = "counting" }
    enum Tick { Tick = "tick" }
}

async fn moves_to_the_same_state_are_counted_one_by_one<C: Store>() {
    let database = C::database();
    let rules = [(Counter::Counting, Tick::Tick, Verdict::To(Counter::Counting))];
    let counter =
        Machine::new("counter", Counter::Counting, rules, Verdict::Review).expect("valid");
    let tick = |tx: &mut C| {
        counter.apply(tx, "c1", Tick::Tick, Cause::unknown()).map(drop).expect("judged");
    };
    let ticked = C::connection(&database).write(|tx| {
        tick(tx);
        Ok::<_, Error>(())
    });
    ticked.expect("commits");
    second_while_first::<C, _>(&database, true, tick, tick);
    let history = transition::history(&mut C::connection(&database), "counter", "c1", 0, 100);
    let versions: Vec<_> = history.expect("reads").iter().map(|line| line.version).collect();
    assert_eq!(versions, [Some(1), Some(2), Some(3)]);
}

async fn a_state_set_by_hand_is_not_overwritten<C: Store>() {
    let database = C::database();
    let _ = tell(&mut C::connection(&database), "o1", Authorize);
    let met = second_while_first::<C, _>(
        &database,
        true,
        |tx| {
            tx.batch_execute("UPDATE inbox_states SET state = 'cancelled'").expect("an operator");
        },
        |tx| verdict(apply(tx, Confirm)),
    );
    assert_eq!(met, Verdict::Review);
    let conn = &mut C::connection(&database);
    assert_eq!(standing(conn, "o1"), Some(("cancelled".to_owned(), 1)));
}

async fn of_many_consumers_each_event_moves_one<C: Store>() {
    const CONSUMERS: usize = 4;
    const ORDERS: usize = 25;
    let database = C::database();
    let barrier = Barrier::new(CONSUMERS);
    let counts: Vec<usize> = thread::scope(|scope| {
        let consumer = || {
            let mut conn = C::connection(&database);
            let mut moved = 0;
            for order in (0..ORDERS).map(|number| format!("o{number}")) {
                for event in [Authorize, Confirm] {
                    // Each move is raced for by all of them.
                    barrier.wait();
                    moved += usize::from(tell(&mut conn, &order, event).moved());
                }
            }
            moved
        };
        let consumers: Vec<_> = (0..CONSUMERS).map(|_| scope.spawn(consumer)).collect();
        consumers.into_iter().map(|one| one.join().expect("no panic")).collect()
    });
    assert_eq!(counts.iter().sum::<usize>(), 2 * ORDERS, "{counts:?}");
    let conn = &mut C::connection(&database);
    for order in (0..ORDERS).map(|number| format!("o{number}")) {
        assert_eq!(standing(conn, &order), Some(("confirmed".to_owned(), 2)));
        let mut verdicts = verdicts(conn, &order);
        verdicts.sort();
        assert_eq!(verdicts.concat(), "duplicate".repeat(2 * (CONSUMERS - 1)) + "toto");
    }
}

#[test]
fn above_read_committed_a_lost_race_is_contention() {
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let database = PgConnection::database();
        let mut first = PgConnection::connection(&database);
        let mut second = PgConnection::connection(&database);
        let _ = tell(&mut first, "o1", Authorize);
        let failed = second.transaction(|tx| {
            tx.batch_execute(&format!("SET TRANSACTION ISOLATION LEVEL {level}"))?;
            assert!(standing(tx, "o1").is_some());
            let _ = tell(&mut first, "o1", Confirm);
            Ok::<_, Error>(apply(tx, Confirm).map(drop)?)
        });
        let error = failed.expect_err("cannot see the first one's move");
        assert_eq!(classify(&error), Class::Contention, "{level}: {error}");
        // Run again, whole, it is a duplicate.
        assert_eq!(tell(&mut second, "o1", Confirm).verdict, Verdict::Duplicate);
    }
}
