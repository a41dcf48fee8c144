//! PostgreSQL and RabbitMQ in place of SQLite and the in-process broker.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use db::{Db, Settings};
use diesel::connection::SimpleConnection;
use diesel::{PgConnection, SqliteConnection};
use tempfile::TempDir;
use transport::rabbitmq::{RabbitMq, RabbitSettings};

use crate::broker::{Broker, Names};
use crate::cli::Story;
use crate::databases::Databases;
use crate::embedded;
use crate::figures::{Figures, Provoked};
use crate::relays::PUBLISH_TIMEOUT;
use crate::shop::Shop;
use crate::story::{self, Wanted};

/// Transactions at once, of each consumer.
pub(crate) const WORKERS: usize = 4;
/// For both consumers, the tills and the relay.
const CONNECTIONS: u32 = 16;
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Plays the whole story on what is given, the rest embedded.
pub(crate) async fn play(story: &Story) -> Result<(Figures, Provoked)> {
    // A run of its own beside others and beside what is there.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let run = format!("counterfoil_demo_{}_{:x}", std::process::id(), since.as_micros());
    let broker = match &story.amqp_url {
        Some(url) => rabbitmq(url, story.allow_plaintext_broker)?,
        None => Broker::memory(),
    };
    let names = Names::of(&run);
    let played = match &story.database_url {
        Some(url) => on_postgres(url, &run, &broker, &names, story).await,
        None => on_sqlite(&broker, &names, story).await,
    };
    let removed = broker.remove(&names).await;
    let played = played?;
    removed.context("the demonstration's queues could not be removed")?;
    Ok(played)
}

async fn on_postgres(
    url: &str,
    schema: &str,
    broker: &Broker,
    names: &Names,
    story: &Story,
) -> Result<(Figures, Provoked)> {
    let outside = postgres(url).await?;
    run_sql(&outside, format!("CREATE SCHEMA {schema}")).await.context("cannot make a schema")?;
    let played = async {
        let databases = shared(postgres(&within(url, schema)?).await?);
        perform(&databases, broker, names, story, WORKERS).await
    };
    let played = played.await;
    run_sql(&outside, format!("DROP SCHEMA {schema} CASCADE"))
        .await
        .context("cannot remove the schema")?;
    played
}

async fn on_sqlite(broker: &Broker, names: &Names, story: &Story) -> Result<(Figures, Provoked)> {
    let (_dir, databases): (TempDir, Databases<SqliteConnection>) = embedded::databases().await?;
    perform(&databases, broker, names, story, embedded::WORKERS).await
}

async fn perform<C: Shop>(
    databases: &Databases<C>,
    broker: &Broker,
    names: &Names,
    story: &Story,
    workers: usize,
) -> Result<(Figures, Provoked)> {
    let wanted =
        Wanted { orders: story.orders, seed: story.seed, style: crate::style(story), workers };
    story::play(databases, broker, names, wanted).await
}

/// Opens a PostgreSQL database.
pub(crate) async fn postgres(url: &str) -> Result<Db<PgConnection>> {
    let mut settings =
        Settings::default().with_pool_size(CONNECTIONS).with_application_name("counterfoil-demo");
    // Nothing in the demonstration is secret, and compose's server has no certificate.
    settings.allow_plaintext = true;
    Ok(Db::connect(url, settings).await?)
}

/// One database for all.
pub(crate) fn shared<C: Shop>(db: Db<C>) -> Databases<C> {
    Databases { shop: db.clone(), billing: db.clone(), naive: db }
}

/// A RabbitMQ broker.
pub(crate) fn rabbitmq(url: &str, allow_plaintext: bool) -> Result<Broker> {
    let connect = {
        let url = url.to_owned();
        move || {
            let mut settings = RabbitSettings::new(&url);
            settings.connection_name = "counterfoil-demo".to_owned();
            settings.allow_plaintext = allow_plaintext;
            settings.publish_timeout = PUBLISH_TIMEOUT;
            // The relay's lease must outlast two of them.
            settings.heartbeat = HEARTBEAT;
            RabbitMq::new(&settings)
        }
    };
    let own = connect()?;
    Ok(Broker {
        topology: Arc::new(own.clone()),
        subscriber: Arc::new(own),
        publisher: Arc::new(move || Ok(Arc::new(connect()?))),
    })
}

/// The same address with another place for tables.
fn within(url: &str, schema: &str) -> Result<String> {
    if url.contains("options=") || !url.contains("://") {
        bail!("give the database as postgres://… without `options`: the demonstration sets them");
    }
    let separator = if url.contains('?') { '&' } else { '?' };
    Ok(format!("{url}{separator}options=-csearch_path%3D{schema}"))
}

async fn run_sql(db: &Db<PgConnection>, sql: String) -> Result<()> {
    Ok(db.call(move |conn| conn.batch_execute(&sql)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_joins_other_parameters() {
        let options = "options=-csearch_path%3Dx";
        assert_eq!(
            within("postgres://h/d", "x").expect("valid"),
            format!("postgres://h/d?{options}")
        );
        let both = within("postgres://h/d?sslmode=require", "x").expect("valid");
        assert_eq!(both, format!("postgres://h/d?sslmode=require&{options}"));
        assert!(within("host=h", "x").is_err());
    }
}
