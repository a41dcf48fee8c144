//! Orders as a state machine: payments, confirmations and cancellations that come twice, late and
//! early. Their states are kept by the inbox, or in a business table.

use diesel::prelude::*;
use inbox::transition::Verdict::{Duplicate, Early, Review, Stale, To};
use inbox::transition::{
    Cause, Decided, Entity, Label, Machine, Transition, TransitionError, entity, history, labels,
    state,
};

use crate::database::Database;
use crate::inbox::Store;

labels! {
    /// Where an order stands.
    pub enum OrderState {
        /// Nothing has been paid.
        PendingPayment = "pending_payment",
        /// The money is there.
        PaymentAuthorized = "payment_authorized",
        /// It will be delivered.
        Confirmed = "confirmed",
        /// It is no more.
        Cancelled = "cancelled",
    }

    /// What an order is told.
    pub enum OrderEvent {
        /// A payment was authorized.
        Authorize = "payment.authorized",
        /// The order was confirmed.
        Confirm = "order.confirmed",
        /// The order was cancelled.
        Cancel = "order.cancelled",
    }
}
use OrderEvent::{Authorize, Cancel, Confirm};
use OrderState::{Cancelled, Confirmed, PaymentAuthorized, PendingPayment};

/// The machine.
#[must_use]
pub fn orders() -> Machine<OrderState, OrderEvent> {
    let rules = [
        (PendingPayment, Authorize, To(PaymentAuthorized)),
        (PendingPayment, Confirm, Early),
        (PendingPayment, Cancel, To(Cancelled)),
        (PaymentAuthorized, Authorize, Duplicate),
        (PaymentAuthorized, Confirm, To(Confirmed)),
        (PaymentAuthorized, Cancel, To(Cancelled)),
        (Confirmed, Authorize, Stale),
        (Confirmed, Confirm, Duplicate),
        (Cancelled, Cancel, Duplicate),
        // Everything else, money for a cancelled order above all, is a case for compensation.
    ];
    Machine::new("order", PendingPayment, rules, Review).expect("valid")
}

/// Tells an order of an event, in a transaction of its own.
pub fn tell<C: Store>(
    conn: &mut C,
    order: &str,
    event: OrderEvent,
) -> Decided<OrderState, OrderEvent> {
    conn.write(|tx| orders().apply(tx, order, event, Cause::unknown())).expect("is judged")
}

/// The name of the order's state and the number of its moves; `None` where it has never moved.
pub fn standing<C: Store>(conn: &mut C, order: &str) -> Option<(String, i64)> {
    state(conn, "order", order).expect("reads").map(|standing| (standing.state, standing.version))
}

/// Everything that was decided about the order.
pub fn told<C: Store>(conn: &mut C, order: &str) -> Vec<Transition> {
    history(conn, "order", order, 0, 1000).expect("reads")
}

/// The verdicts on the order, in order.
pub fn verdicts<C: Store>(conn: &mut C, order: &str) -> Vec<String> {
    told(conn, order).into_iter().map(|line| line.verdict).collect()
}

mod schema {
    diesel::table! {
        orders (id) {
            id -> Text,
            status -> Text,
        }
    }
}
use schema::orders as table;

/// A database with a table of orders of its own.
pub trait OwnOrders: Store {
    /// A fresh one.
    #[must_use]
    fn with_orders() -> Database {
        let database = Self::database();
        Self::connection(&database)
            .batch_execute("CREATE TABLE orders (id TEXT PRIMARY KEY, status TEXT NOT NULL)")
            .expect("creates the business table");
        database
    }

    /// Adds an order.
    fn place(tx: &mut Self, order: &str);

    /// Its status, if it is there.
    fn status(tx: &mut Self, order: &str) -> QueryResult<Option<String>>;

    /// Changes its status if it still is `from`; whether it was.
    fn set_status(tx: &mut Self, order: &str, from: &str, to: &str) -> QueryResult<bool>;

    /// The order as an entity.
    fn order(order: &str) -> impl Entity<Self, OrderState> {
        entity(
            order,
            |tx: &mut Self| {
                let status = Self::status(tx, order)?;
                Ok(status.map(|status| OrderState::named(&status)).transpose()?)
            },
            |tx: &mut Self, from: OrderState, to: OrderState| {
                Ok(Self::set_status(tx, order, from.name(), to.name())?)
            },
        )
    }

    /// Tells an order of an event, in a transaction of its own.
    ///
    /// # Errors
    /// What the machine says.
    fn tell_own(
        conn: &mut Self,
        order: &str,
        event: OrderEvent,
    ) -> Result<Decided<OrderState, OrderEvent>, TransitionError> {
        conn.write(|tx| orders().apply_to(tx, Self::order(order), event, Cause::unknown()))
    }
}

macro_rules! own_orders {
    ($connection:ty) => {
        impl OwnOrders for $connection {
            fn place(tx: &mut Self, order: &str) {
                diesel::insert_into(table::table)
                    .values((table::id.eq(order), table::status.eq(PendingPayment.name())))
                    .execute(tx)
                    .expect("places the order");
            }

            fn status(tx: &mut Self, order: &str) -> QueryResult<Option<String>> {
                table::table.find(order).select(table::status).first(tx).optional()
            }

            fn set_status(tx: &mut Self, order: &str, from: &str, to: &str) -> QueryResult<bool> {
                diesel::update(table::table.find(order).filter(table::status.eq(from)))
                    .set(table::status.eq(to))
                    .execute(tx)
                    .map(|rows| rows == 1)
            }
        }
    };
}

own_orders!(PgConnection);
own_orders!(SqliteConnection);
