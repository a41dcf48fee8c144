use std::borrow::Cow;

use message::Event;
use serde::{Deserialize, Serialize};

/// An authorization of a payment. The provider tells it twice, in a call and in its nightly report, with
/// another number each time.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct PaymentAuthorized {
    pub(crate) authorization: String,
    pub(crate) order: String,
    pub(crate) cents: i64,
}

impl Event for PaymentAuthorized {
    const KIND: &'static str = "payment.authorized";

    fn operation(&self) -> Cow<'_, str> {
        (&self.authorization).into()
    }
}

/// The warehouse has the goods.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct OrderConfirmed {
    pub(crate) order: String,
}

impl Event for OrderConfirmed {
    const KIND: &'static str = "order.confirmed";

    fn operation(&self) -> Cow<'_, str> {
        (&self.order).into()
    }
}

/// The customer has changed her mind.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct OrderCancelled {
    pub(crate) order: String,
}

impl Event for OrderCancelled {
    const KIND: &'static str = "order.cancelled";

    fn operation(&self) -> Cow<'_, str> {
        (&self.order).into()
    }
}
