//! What the parts of the shop tell each other.

use std::borrow::Cow;

use message::Event;
use serde::{Deserialize, Serialize};

macro_rules! event {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $($field:ident: $type:ty),+) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Serialize, Deserialize)]
        pub(crate) struct $name {
            pub(crate) order: String,
            $(pub(crate) $field: $type,)+
        }

        impl Event for $name {
            const KIND: &'static str = $kind;

            // One of each for an order, whoever tells it and however often.
            fn operation(&self) -> Cow<'_, str> {
                (&self.order).into()
            }
        }
    };
}

event!(
    /// A customer wants something.
    OrderPlaced, "order.placed", customer: String, item: String, quantity: i64, cents: i64
);
event!(
    /// It is set aside for the order.
    StockReserved, "stock.reserved", customer: String, cents: i64
);
event!(
    /// There is not enough of it.
    StockRefused, "stock.refused", item: String
);
event!(
    /// The payment provider has the money.
    PaymentAuthorized, "payment.authorized", customer: String, cents: i64
);
event!(
    /// The order has an invoice.
    InvoiceIssued, "invoice.issued", customer: String, number: i64, cents: i64
);
