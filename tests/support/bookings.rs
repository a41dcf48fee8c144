//! Numbered bookings on accounts: the business table behind real consumer processes.

use std::borrow::Cow;

use diesel::connection::SimpleConnection;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel::{PgConnection, QueryResult, QueryableByName, RunQueryDsl, sql_query};
use message::{Event, Message};
use serde::{Deserialize, Serialize};

/// The `number`th booking on an account, from 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booking {
    /// Whose; the ordering key.
    pub account: String,
    /// Counts up within the account.
    pub number: i64,
    /// How much.
    pub cents: i64,
}

impl Booking {
    /// A booking of as many cents as its number says.
    #[must_use]
    pub fn new(account: i64, number: i64) -> Self {
        Self { account: format!("account-{account}"), number, cents: number }
    }

    /// As it travels.
    #[must_use]
    pub fn message(&self, exchange: &str) -> Message {
        let mut message = Message::from_event(self).expect("valid");
        (message.exchange, message.routing_key) = (exchange.to_owned(), "ok".into());
        message
    }
}

impl Event for Booking {
    const KIND: &'static str = "account.booked";

    fn operation(&self) -> Cow<'_, str> {
        format!("{}-{}", self.account, self.number).into()
    }

    fn ordering_key(&self) -> Option<Cow<'_, str>> {
        Some((&self.account).into())
    }
}

/// A booking that took effect.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub struct Booked {
    /// Whose.
    #[diesel(sql_type = Text)]
    pub account: String,
    /// Which.
    #[diesel(sql_type = BigInt)]
    pub number: i64,
    /// How much.
    #[diesel(sql_type = BigInt)]
    pub cents: i64,
    /// The number of the account's last booking when it took effect.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub last: Option<i64>,
}

/// Creates the table. Nothing in it keeps a booking from being there twice.
pub fn create(conn: &mut PgConnection) {
    conn.batch_execute(
        "CREATE TABLE bookings (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account text NOT NULL,
                                number bigint NOT NULL, cents bigint NOT NULL, last bigint);
         CREATE INDEX ON bookings (account, id)",
    )
    .expect("creates the business table");
}

/// The business effect.
///
/// # Errors
/// When the database refuses.
pub fn book(tx: &mut PgConnection, booking: &Booking) -> QueryResult<()> {
    sql_query(
        "INSERT INTO bookings (account, number, cents, last) VALUES ($1, $2, $3,
             (SELECT number FROM bookings WHERE account = $1 ORDER BY id DESC LIMIT 1))",
    )
    .bind::<Text, _>(&booking.account)
    .bind::<BigInt, _>(booking.number)
    .bind::<BigInt, _>(booking.cents)
    .execute(tx)
    .map(drop)
}

/// Everything that took effect, by account, in order.
pub fn booked(conn: &mut PgConnection) -> Vec<Booked> {
    sql_query("SELECT account, number, cents, last FROM bookings ORDER BY account, id")
        .load(conn)
        .expect("reads")
}
