use std::borrow::Cow;

use message::Event;
use serde::{Deserialize, Serialize};

/// The fact the whole demonstration is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PaymentSucceeded {
    pub(crate) payment_id: String,
    pub(crate) order_id: String,
    pub(crate) merchant: String,
    pub(crate) cents: i64,
    pub(crate) currency: String,
    /// Microseconds since 1970. Differs when the same payment is told again.
    pub(crate) told_at: i64,
}

impl Event for PaymentSucceeded {
    const KIND: &'static str = "payment.succeeded";

    fn operation(&self) -> Cow<'_, str> {
        (&self.payment_id).into()
    }

    fn ordering_key(&self) -> Option<Cow<'_, str>> {
        Some((&self.order_id).into())
    }

    fn fingerprint_excludes() -> &'static [&'static str] {
        &["told_at"]
    }
}
