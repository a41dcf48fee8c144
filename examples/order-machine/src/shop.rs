use std::sync::Arc;

use anyhow::{Result, ensure};
use db::Db;
use diesel::prelude::*;
use inbox::transition::{self, Machine, Transition};
use inbox::{Builder, Consumer, Inbox, ReplaySafe};
use message::Message;
use transport::memory::MemoryBroker;
use transport::{Binding, Exchange, ExchangeKind, Publisher, Queue, Topology, Verdict};

use crate::events::{OrderCancelled, OrderConfirmed, PaymentAuthorized};
use crate::machine::{Event, NAME, State};

/// Where events go unless they say otherwise.
const EXCHANGE: &str = "events";
const QUEUE: &str = "orders";
pub(crate) const CONSUMER: Consumer<'static> = Consumer("orders");

diesel::table! {
    balance (cents) { cents -> BigInt, }
}

/// The shop's database and its broker.
#[derive(Clone)]
pub(crate) struct Shop {
    db: Db<SqliteConnection>,
    broker: MemoryBroker,
}

impl Shop {
    pub(crate) async fn open(path: &str) -> Result<Self> {
        let db = Db::<SqliteConnection>::connect(path, db::Settings::default()).await?;
        db.call(migrations::run).await?;
        db.call(|conn| {
            diesel::sql_query("CREATE TABLE balance (cents BIGINT NOT NULL)").execute(conn)
        })
        .await?;
        let broker = MemoryBroker::new();
        let exchange = Exchange { name: EXCHANGE.to_owned(), kind: ExchangeKind::Topic };
        broker.declare_exchange(&exchange).await?;
        broker.declare_queue(&Queue::new(QUEUE)).await?;
        let (exchange, queue, routing_key) = (EXCHANGE.into(), QUEUE.into(), "#".into());
        broker.bind(&Binding { exchange, queue, routing_key }).await?;
        Ok(Self { db, broker })
    }

    /// The consumer: each kind is an event of the machine, and what goes with a move is done with it.
    pub(crate) fn consumer(&self, orders: &Machine<State, Event>) -> Builder<SqliteConnection> {
        let (paid, confirmed, cancelled) = (orders.clone(), orders.clone(), orders.clone());
        Inbox::new(CONSUMER, self.db.clone(), Arc::new(self.broker.clone()), QUEUE)
            .on(ReplaySafe, move |tx: &mut SqliteConnection, event: &PaymentAuthorized, context| {
                let decided = paid.apply(tx, &event.order, Event::PaymentAuthorized, context)?;
                if decided.moved() {
                    let credit = balance::cents.eq(event.cents);
                    diesel::insert_into(balance::table).values(credit).execute(tx)?;
                }
                decided.answer(context)
            })
            .on(ReplaySafe, move |tx: &mut SqliteConnection, event: &OrderConfirmed, context| {
                confirmed.apply(tx, &event.order, Event::Confirmed, context)?.answer(context)
            })
            .on(ReplaySafe, move |tx: &mut SqliteConnection, event: &OrderCancelled, context| {
                cancelled.apply(tx, &event.order, Event::Cancelled, context)?.answer(context)
            })
    }

    pub(crate) async fn publish(&self, message: Message) -> Result<()> {
        let verdicts = self.broker.open_lane().await?.publish(&[message]).await?;
        ensure!(verdicts == [Verdict::Confirmed], "not confirmed: {verdicts:?}");
        Ok(())
    }

    /// What was decided about an order.
    pub(crate) async fn history(&self, order: &str) -> Result<Vec<Transition>> {
        let order = order.to_owned();
        let history = self.db.call(move |conn| transition::history(conn, NAME, &order, 0, 100));
        Ok(history.await?)
    }

    /// The name of an order's state.
    pub(crate) async fn state(&self, order: &str) -> Result<Option<String>> {
        let order = order.to_owned();
        let standing = self.db.call(move |conn| transition::state(conn, NAME, &order)).await?;
        Ok(standing.map(|standing| standing.state))
    }

    /// Why messages were parked.
    pub(crate) async fn parked(&self) -> Result<Vec<String>> {
        let parked = self.db.call(|conn| inbox::parked(conn, CONSUMER, 0, 100)).await?;
        Ok(parked.into_iter().map(|parked| parked.detail).collect())
    }

    /// Every credit to the merchant.
    pub(crate) async fn credits(&self) -> Result<Vec<i64>> {
        Ok(self.db.call(|conn| balance::table.select(balance::cents).load(conn)).await?)
    }
}
