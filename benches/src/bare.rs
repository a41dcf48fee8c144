use anyhow::{Context, Result};
use db::{Backend, Db};
use diesel::{Connection as _, PgConnection, QueryResult};
use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use tokio::task::JoinSet;

use crate::{Fixture, Paid};

/// Applies `count` payments from the fixture's queue as a service without an inbox would: decoded, booked in
/// a transaction of its own, acknowledged after the commit; `concurrency` of them at once.
///
/// # Errors
/// When a service refuses.
pub async fn consume_bare(
    fixture: &Fixture,
    db: &Db<PgConnection>,
    concurrency: usize,
    count: usize,
) -> Result<()> {
    let connection =
        Connection::connect(&fixture.amqp_url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let prefetch = u16::try_from(concurrency * 4)?;
    channel.basic_qos(prefetch, BasicQosOptions { global: false }).await?;
    let mut consumer = channel
        .basic_consume(
            fixture.exchange().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let mut working = JoinSet::new();
    for _ in 0..count {
        if working.len() >= concurrency {
            working.join_next().await.context("one is at work")???;
        }
        let delivery = consumer.next().await.context("the consumer ended")??;
        let db = db.clone();
        working.spawn(async move {
            let paid: Paid = serde_json::from_slice(&delivery.data)?;
            db.call(move |conn| conn.write(|tx| paid.book(tx))).await?;
            delivery.acker.ack(BasicAckOptions { multiple: false }).await?;
            anyhow::Ok(())
        });
    }
    while let Some(done) = working.join_next().await {
        done??;
    }
    connection.close(200, "OK".into()).await?;
    Ok(())
}

/// Books payments with nothing else around them, `batch` to a transaction, with a savepoint for each or
/// without.
///
/// # Errors
/// When the database refuses.
pub fn book_in_batches(
    conn: &mut PgConnection,
    payments: &[Paid],
    batch: usize,
    savepoints: bool,
) -> QueryResult<()> {
    for together in payments.chunks(batch) {
        conn.write(|tx| {
            together.iter().try_for_each(|paid| {
                if savepoints { tx.transaction(|tx| paid.book(tx)) } else { paid.book(tx) }
            })
        })?;
    }
    Ok(())
}
