//! A state machine over a status column of the host's own.

use inbox::transition::{Cause, TransitionError, Verdict, entity};
use support::orders::OrderEvent::{Authorize, Cancel, Confirm};
use support::orders::OrderState::{self, Cancelled, PaymentAuthorized, PendingPayment};
use support::orders::{OwnOrders, orders, standing, told};

use super::on_both;

on_both!(
    the_table_moves_and_the_history_is_kept,
    an_order_that_is_not_there_is_early,
    a_compare_and_set_that_never_holds_is_told_and_not_repeated_for_ever,
);

async fn the_table_moves_and_the_history_is_kept<C: OwnOrders>() {
    let database = C::with_orders();
    let conn = &mut C::connection(&database);
    C::place(conn, "o1");
    for (event, verdict, status) in [
        (Confirm, Verdict::Early, "pending_payment"),
        (Authorize, Verdict::To(PaymentAuthorized), "payment_authorized"),
        (Authorize, Verdict::Duplicate, "payment_authorized"),
        (Cancel, Verdict::To(Cancelled), "cancelled"),
        (Confirm, Verdict::Review, "cancelled"),
    ] {
        let decided = C::tell_own(conn, "o1", event).expect("judged");
        assert_eq!(decided.verdict, verdict, "{event:?}");
        assert_eq!(C::status(conn, "o1").expect("reads").as_deref(), Some(status), "{event:?}");
    }
    let lines: Vec<_> = told(conn, "o1")
        .into_iter()
        .map(|line| (line.version, line.from, line.to, line.verdict))
        .collect();
    let (pending, paid) = ("pending_payment", "payment_authorized");
    let expected = [(pending, paid, "to"), (paid, paid, "duplicate"), (paid, "cancelled", "to")];
    let expected =
        expected.map(|(from, to, verdict)| (None, from.into(), to.into(), verdict.into()));
    assert_eq!(lines, expected);
    // There is one truth about the state.
    assert_eq!(standing(conn, "o1"), None);
}

async fn an_order_that_is_not_there_is_early<C: OwnOrders>() {
    let database = C::with_orders();
    let conn = &mut C::connection(&database);
    let decided = C::tell_own(conn, "o1", Authorize).expect("judged");
    assert_eq!((decided.verdict, decided.from, decided.state()), (Verdict::Early, None, None));
    C::place(conn, "o1");
    let decided = C::tell_own(conn, "o1", Authorize).expect("judged");
    assert_eq!(decided.verdict, Verdict::To(PaymentAuthorized));
}

async fn a_compare_and_set_that_never_holds_is_told_and_not_repeated_for_ever<C: OwnOrders>() {
    let database = C::with_orders();
    let conn = &mut C::connection(&database);
    let mut asked = 0;
    let failed = conn.write(|tx| {
        let order = entity(
            "o1",
            |_: &mut C| Ok(Some(PendingPayment)),
            |_: &mut C, _: OrderState, _: OrderState| {
                asked += 1;
                Ok(false)
            },
        );
        orders().apply_to(tx, order, Authorize, Cause::unknown())
    });
    let error = failed.expect_err("cannot move");
    assert!(matches!(error, TransitionError::Contended { rounds } if rounds == asked), "{error}");
    assert_eq!(told(conn, "o1"), []);
}
