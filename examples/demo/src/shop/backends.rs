use db::Backend;
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel::upsert::excluded;
use diesel_migrations::MigrationHarness;
use message::MessageId;
use outbox::{Draft, EnqueueError};

use super::tables::{accounts, announcements, credits, orders, payments};
use super::{Announced, Credit, MIGRATIONS, Repeats, Shop, Story, Telling, now};
use crate::event::PaymentSucceeded;
use crate::plan::Sale;

macro_rules! shop {
    ($connection:ty) => {
        impl Shop for $connection {
            fn migrate(&mut self) -> anyhow::Result<()> {
                migrations::run(self)?;
                let ran = self.run_pending_migrations(MIGRATIONS).map(|_| ());
                ran.map_err(|error| anyhow::anyhow!("the shop's own migrations failed: {error}"))
            }

            fn trade(
                &mut self,
                exchange: &str,
                placed: &[Sale],
                told: &[Telling],
            ) -> Result<(), EnqueueError> {
                self.write(|tx| {
                    for sale in placed {
                        diesel::insert_into(orders::table)
                            .values((
                                orders::id.eq(&sale.order_id),
                                orders::merchant.eq(&sale.merchant),
                                orders::cents.eq(sale.cents),
                                orders::placed_at.eq(now()),
                            ))
                            .execute(tx)?;
                        diesel::insert_into(payments::table)
                            .values((
                                payments::id.eq(&sale.payment_id),
                                payments::order_id.eq(&sale.order_id),
                                payments::cents.eq(sale.cents),
                                payments::paid_at.eq(now()),
                            ))
                            .execute(tx)?;
                    }
                    let mut drafts = Vec::with_capacity(told.len());
                    for telling in told {
                        let id = MessageId::new();
                        diesel::insert_into(announcements::table)
                            .values((
                                announcements::event_id.eq(id.to_string()),
                                announcements::payment_id.eq(&telling.sale.payment_id),
                                announcements::story.eq(telling.story.as_str()),
                            ))
                            .execute(tx)?;
                        drafts.push(
                            Draft::of(&telling.event()).id(id).exchange(exchange).source("shop"),
                        );
                    }
                    outbox::enqueue_all(tx, drafts).map(drop)
                })
            }

            fn credit(&mut self, consumer: &str, paid: &PaymentSucceeded) -> QueryResult<()> {
                diesel::insert_into(accounts::table)
                    .values((
                        accounts::consumer.eq(consumer),
                        accounts::merchant.eq(&paid.merchant),
                        accounts::cents.eq(paid.cents),
                    ))
                    .on_conflict((accounts::consumer, accounts::merchant))
                    .do_update()
                    .set(accounts::cents.eq(accounts::cents + excluded(accounts::cents)))
                    .execute(self)?;
                diesel::insert_into(credits::table)
                    .values((
                        credits::consumer.eq(consumer),
                        credits::payment_id.eq(&paid.payment_id),
                        credits::cents.eq(paid.cents),
                        credits::paid_at.eq(paid.told_at),
                        credits::credited_at.eq(now()),
                    ))
                    .execute(self)?;
                Ok(())
            }

            fn payments(&mut self) -> QueryResult<Vec<(String, i64)>> {
                payments::table.select((payments::id, payments::cents)).load(self)
            }

            fn announced(&mut self) -> QueryResult<Announced> {
                let mut told = |story: Story| {
                    announcements::table
                        .filter(announcements::story.eq(story.as_str()))
                        .count()
                        .get_result(self)
                };
                let (first, again, altered) =
                    (told(Story::First)?, told(Story::Again)?, told(Story::Altered)?);
                Ok(Announced { first, again, altered })
            }

            fn balance(&mut self, consumer: &str) -> QueryResult<i64> {
                accounts::table
                    .filter(accounts::consumer.eq(consumer))
                    .select(accounts::cents)
                    .load::<i64>(self)
                    .map(|cents| cents.iter().sum())
            }

            fn credits(&mut self, consumer: &str) -> QueryResult<Vec<Credit>> {
                credits::table
                    .filter(credits::consumer.eq(consumer))
                    .select((
                        credits::payment_id,
                        credits::cents,
                        credits::paid_at,
                        credits::credited_at,
                    ))
                    .load(self)
            }

            fn credit_count(&mut self, consumer: &str) -> QueryResult<i64> {
                credits::table.filter(credits::consumer.eq(consumer)).count().get_result(self)
            }

            fn repeats(&mut self, consumer: &str) -> QueryResult<Repeats> {
                // The inbox's own table, read as a dashboard would.
                diesel::sql_query(
                    "SELECT CAST(coalesce(sum(duplicates), 0) AS BIGINT) AS duplicates,
                            CAST(coalesce(sum(conflicts), 0) AS BIGINT) AS conflicts
                     FROM inbox_operations WHERE consumer = $1",
                )
                .bind::<Text, _>(consumer)
                .get_result(self)
            }
        }
    };
}

#[cfg(feature = "services")]
shop!(diesel::PgConnection);
shop!(diesel::SqliteConnection);
