use std::borrow::Cow;
use std::sync::Arc;

use anyhow::Result;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::{PgConnection, QueryResult};
use message::{Event, Message};
use serde::{Deserialize, Serialize};

use crate::{Direct, Fixture, Ready};

diesel::table! {
    balances (account) {
        account -> Integer,
        cents -> BigInt,
    }
}

diesel::table! {
    postings (id) {
        id -> BigInt,
        account -> Integer,
        cents -> BigInt,
    }
}

/// Accounts that payments go to.
const ACCOUNTS: u64 = 1_000;

/// The article's event: money for an account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Paid {
    /// The business identity.
    pub payment: String,
    /// Whose.
    pub account: i32,
    /// How much.
    pub cents: i64,
    note: String,
}

impl Event for Paid {
    const KIND: &'static str = "bench.message";

    fn operation(&self) -> Cow<'_, str> {
        (&self.payment).into()
    }
}

impl Paid {
    /// The payment with a number.
    #[must_use]
    pub fn numbered(number: u64) -> Self {
        // A provider's ids come in no order, so neither do the keys: in an index they land anywhere.
        let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            payment: format!("pay_{scattered:016x}"),
            account: i32::try_from(number % ACCOUNTS).unwrap_or(0),
            cents: 100,
            note: "x".repeat(150),
        }
    }

    /// The business change: a posting, and the balance with it.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn book(&self, tx: &mut PgConnection) -> QueryResult<()> {
        diesel::insert_into(postings::table)
            .values((postings::account.eq(self.account), postings::cents.eq(self.cents)))
            .execute(tx)?;
        diesel::update(balances::table.find(self.account))
            .set(balances::cents.eq(balances::cents + self.cents))
            .execute(tx)
            .map(drop)
    }
}

/// Payments, in a database with accounts for them.
pub struct Payments {
    direct: Direct,
    next: u64,
}

impl Payments {
    /// Makes the business tables.
    ///
    /// # Errors
    /// When a service refuses.
    pub async fn on(fixture: &Fixture) -> Result<Self> {
        PgConnection::establish(&fixture.database_url)?.batch_execute(&format!(
            "CREATE TABLE balances (account int PRIMARY KEY, cents bigint NOT NULL);
             CREATE TABLE postings (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account int NOT NULL, cents bigint NOT NULL);
             INSERT INTO balances SELECT n, 0 FROM generate_series(0, {ACCOUNTS} - 1) n"
        ))?;
        let direct = Direct::open(&fixture.amqp_url, fixture.exchange(), 4).await?;
        Ok(Self { direct, next: 0 })
    }

    /// Payments nobody has seen yet.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn fresh(&mut self, count: u64) -> Result<Arc<[Ready]>> {
        self.unsent(count).map(|paid| Ok(Ready::of(&Message::from_event(&paid)?))).collect()
    }

    /// The same as they are, for no queue.
    pub fn unsent(&mut self, count: u64) -> impl Iterator<Item = Paid> + use<> {
        let numbers = self.next..self.next + count;
        self.next += count;
        numbers.map(Paid::numbered)
    }

    /// Puts them into the queue.
    ///
    /// # Errors
    /// When one is not confirmed.
    pub async fn publish(&self, payments: &Arc<[Ready]>) -> Result<()> {
        self.direct.publish(payments, 1_000).await
    }
}
