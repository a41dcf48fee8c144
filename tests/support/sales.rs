//! Orders of limited stock, each with an invoice whose number has no gap before it. Nothing in these tables keeps the
//! stock from below zero, an order from being sold twice, or a number from being given twice.

use std::borrow::Cow;
use std::collections::BTreeMap;

use diesel::connection::SimpleConnection;
use diesel::sql_types::{BigInt, Text};
use diesel::{PgConnection, QueryableByName, RunQueryDsl, sql_query};
use inbox::Failure;
use message::{Event, Message};
use serde::{Deserialize, Serialize};

/// A customer wants some of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sale {
    /// Which order.
    pub order: i64,
    /// Of what.
    pub item: String,
    /// How many.
    pub quantity: i64,
}

impl Sale {
    /// As it travels, with an id of its own each time.
    #[must_use]
    pub fn message(&self, exchange: &str) -> Message {
        let mut message = Message::from_event(self).expect("valid");
        (message.exchange, message.routing_key) = (exchange.to_owned(), "ok".into());
        message
    }
}

impl Event for Sale {
    const KIND: &'static str = "order.placed";

    fn operation(&self) -> Cow<'_, str> {
        format!("order-{}", self.order).into()
    }
}

/// The order is sold.
#[derive(Debug, Serialize, Deserialize)]
struct Invoiced {
    order: i64,
    number: i64,
}

impl Event for Invoiced {
    const KIND: &'static str = "invoice.issued";

    fn operation(&self) -> Cow<'_, str> {
        format!("order-{}", self.order).into()
    }
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// Creates the tables, with so many of each item.
pub fn create(conn: &mut PgConnection, stock: &[(&str, i64)]) {
    conn.batch_execute(
        "CREATE TABLE stock (item text PRIMARY KEY, remaining bigint NOT NULL);
         CREATE TABLE invoice_numbers (last bigint NOT NULL);
         INSERT INTO invoice_numbers VALUES (0);
         CREATE TABLE sales (\"order\" bigint NOT NULL, item text NOT NULL, quantity bigint NOT NULL,
                             number bigint NOT NULL)",
    )
    .expect("creates the business tables");
    for (item, had) in stock {
        sql_query("INSERT INTO stock VALUES ($1, $2)")
            .bind::<Text, _>(item)
            .bind::<BigInt, _>(had)
            .execute(conn)
            .expect("fills the stock");
    }
}

/// The number of the invoice, or 0 where there is not enough. Some fail when everything is written, the first time.
///
/// # Errors
/// When the database refuses.
pub fn sell(tx: &mut PgConnection, sale: &Sale, attempt: u32) -> Result<i64, Failure> {
    // The one row that all of them need comes first: in batches two would else wait for each other's items.
    let Number { number } =
        sql_query("SELECT last + 1 AS number FROM invoice_numbers FOR UPDATE").get_result(tx)?;
    let taken = sql_query(
        "UPDATE stock SET remaining = remaining - $2 WHERE item = $1 AND remaining >= $2",
    )
    .bind::<Text, _>(&sale.item)
    .bind::<BigInt, _>(sale.quantity)
    .execute(tx)?;
    if taken == 0 {
        return Ok(0);
    }
    sql_query("UPDATE invoice_numbers SET last = $1").bind::<BigInt, _>(number).execute(tx)?;
    sql_query("INSERT INTO sales VALUES ($1, $2, $3, $4)")
        .bind::<BigInt, _>(sale.order)
        .bind::<Text, _>(&sale.item)
        .bind::<BigInt, _>(sale.quantity)
        .bind::<BigInt, _>(number)
        .execute(tx)?;
    outbox::enqueue(tx, &Invoiced { order: sale.order, number })?;
    if sale.order % 7 == 0 && attempt == 1 {
        return Err(Failure::retry("the printer jammed"));
    }
    Ok(number)
}

/// What was sold.
#[derive(Clone, Debug, QueryableByName)]
pub struct Sold {
    /// Which order.
    #[diesel(sql_type = BigInt)]
    pub order: i64,
    /// Of what.
    #[diesel(sql_type = Text)]
    pub item: String,
    /// How many.
    #[diesel(sql_type = BigInt)]
    pub quantity: i64,
    /// The number of its invoice.
    #[diesel(sql_type = BigInt)]
    pub number: i64,
}

/// Every sale, in the order of the invoices.
pub fn sold(conn: &mut PgConnection) -> Vec<Sold> {
    sql_query("SELECT \"order\", item, quantity, number FROM sales ORDER BY number, \"order\"")
        .load(conn)
        .expect("reads")
}

#[derive(QueryableByName)]
struct Left {
    #[diesel(sql_type = Text)]
    item: String,
    #[diesel(sql_type = BigInt)]
    remaining: i64,
}

/// How many of each item are left.
pub fn remaining(conn: &mut PgConnection) -> BTreeMap<String, i64> {
    let rows: Vec<Left> = sql_query("SELECT item, remaining FROM stock").load(conn).expect("reads");
    rows.into_iter().map(|left| (left.item, left.remaining)).collect()
}
