//! The shop: what it writes, and what can be read off its tables afterwards.

mod backends;
mod tables;

use std::time::{SystemTime, UNIX_EPOCH};

use diesel::QueryResult;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use inbox::InboxConnection;
use outbox::EnqueueError;
use outbox::admin::AdminStore;

use crate::event::PaymentSucceeded;
use crate::plan::Sale;

/// The shop's own migrations, beside Counterfoil's in the same database.
pub(crate) const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// A database the shop and its consumers can live in. The statements are the same on both; diesel
/// wants to know which.
pub(crate) trait Shop: InboxConnection + AdminStore {
    /// Makes Counterfoil's tables and the shop's.
    fn migrate(&mut self) -> anyhow::Result<()>;

    /// One business transaction: takes orders with their payments, and tells of payments, these or
    /// earlier ones. All of it or nothing.
    fn trade(
        &mut self,
        exchange: &str,
        placed: &[Sale],
        told: &[Telling],
    ) -> Result<(), EnqueueError>;

    /// Adds a payment to what a consumer owes its merchant. Does it again when called again.
    fn credit(&mut self, consumer: &str, paid: &PaymentSucceeded) -> QueryResult<()>;

    /// Every payment taken, with its amount.
    fn payments(&mut self) -> QueryResult<Vec<(String, i64)>>;

    /// How often the shop told of payments.
    fn announced(&mut self) -> QueryResult<Announced>;

    /// What a consumer owes all merchants together.
    fn balance(&mut self, consumer: &str) -> QueryResult<i64>;

    /// Every credit a consumer gave.
    fn credits(&mut self, consumer: &str) -> QueryResult<Vec<Credit>>;

    /// How many credits a consumer gave.
    fn credit_count(&mut self, consumer: &str) -> QueryResult<i64>;

    /// Duplicates and conflicts that the inbox has counted for a consumer.
    fn repeats(&mut self, consumer: &str) -> QueryResult<Repeats>;
}

/// One telling of a payment; an event id of its own each time.
#[derive(Clone, Debug)]
pub(crate) struct Telling {
    pub(crate) sale: Sale,
    pub(crate) story: Story,
}

/// Which telling of a payment it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Story {
    /// The first.
    First,
    /// The same once more, as after a timeout whose outcome was unknown.
    Again,
    /// Once more with another amount.
    Altered,
}

impl Story {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Again => "again",
            Self::Altered => "altered",
        }
    }
}

impl Telling {
    fn event(&self) -> PaymentSucceeded {
        let Sale { payment_id, order_id, merchant, cents, altered, .. } = self.sale.clone();
        let cents = if self.story == Story::Altered { altered.unwrap_or(cents) } else { cents };
        PaymentSucceeded {
            payment_id,
            order_id,
            merchant,
            cents,
            currency: "EUR".to_owned(),
            told_at: now(),
        }
    }
}

/// How often the shop told of payments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Announced {
    /// For the first time.
    pub(crate) first: i64,
    /// Once more, under another event id.
    pub(crate) again: i64,
    /// Once more, with another amount.
    pub(crate) altered: i64,
}

impl Announced {
    pub(crate) const fn total(&self) -> i64 {
        self.first + self.again + self.altered
    }
}

/// One credit.
#[derive(Clone, Debug, diesel::Queryable)]
pub(crate) struct Credit {
    pub(crate) payment_id: String,
    pub(crate) cents: i64,
    pub(crate) paid_at: i64,
    pub(crate) credited_at: i64,
}

/// What came again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, diesel::QueryableByName)]
pub(crate) struct Repeats {
    /// With the same content.
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    pub(crate) duplicates: i64,
    /// With other content.
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    pub(crate) conflicts: i64,
}

/// Microseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
