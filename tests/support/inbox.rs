//! Inboxes under test: a business table on either database, and an inbox whose endings can be awaited.

use std::borrow::Cow;
use std::sync::Arc;

use db::Db;
use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use inbox::{
    Builder, Consumer, Ending, InboxConnection, Operation, Parked, Reason, ReplaySafe, RunError,
};
use message::{Event, Message, OperationKey};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use transport::Subscriber;

use crate::database::Database;

/// The consumer all scenarios use.
pub const BILLING: Consumer<'static> = Consumer("billing");

/// The payment that kills the process of a `deadly_consumer`.
pub const DEADLY: &str = "deadly";

mod schema {
    diesel::table! {
        ledger (id) {
            id -> BigInt,
            account -> Text,
            cents -> BigInt,
        }
    }
}
use schema::ledger;

/// Money came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// The business identity.
    pub payment: String,
    /// Whose.
    pub account: String,
    /// How much.
    pub cents: i64,
}

impl Payment {
    /// A payment to account `a`.
    #[must_use]
    pub fn new(payment: &str, cents: i64) -> Self {
        Self { payment: payment.to_owned(), account: "a".to_owned(), cents }
    }

    /// As it travels.
    #[must_use]
    pub fn message(&self) -> Message {
        Message::from_event(self).expect("valid")
    }

    /// Its operation.
    #[must_use]
    pub fn key(payment: &str) -> OperationKey {
        OperationKey::new(Self::KIND, payment).expect("valid")
    }
}

impl Event for Payment {
    const KIND: &'static str = "payment.succeeded";
    const VERSION: u32 = 2;

    fn operation(&self) -> Cow<'_, str> {
        (&self.payment).into()
    }
}

/// A database to run a scenario on.
pub trait Store: InboxConnection + Sized {
    /// What it is.
    const NAME: &'static str;

    /// A fresh one, migrated, with the business table.
    fn database() -> Database;

    /// A pool on it.
    fn pool_with(database: &Database, settings: db::Settings) -> Db<Self>;

    /// A connection of its own.
    fn connection(database: &Database) -> Self;

    /// The business effect.
    fn credit(tx: &mut Self, account: &str, cents: i64) -> QueryResult<()>;

    /// Every effect on an account.
    fn credits(conn: &mut Self, account: &str) -> Vec<i64>;

    /// How many redelivered messages were begun and have not come to an end.
    fn starts(conn: &mut Self) -> i64;

    /// A pool of eight.
    #[must_use]
    fn pool(database: &Database) -> Db<Self> {
        Self::pool_with(database, db::Settings::default())
    }

    /// What is stored of a payment.
    fn stored(conn: &mut Self, payment: &str) -> Option<Operation> {
        inbox::operation(conn, BILLING, &Payment::key(payment)).expect("reads")
    }

    /// Everything parked.
    fn parked(conn: &mut Self) -> Vec<Parked> {
        inbox::parked(conn, BILLING, 0, 1000).expect("reads")
    }
}

macro_rules! store {
    ($connection:ty, $name:literal, $make:ident, $create:literal) => {
        impl Store for $connection {
            const NAME: &'static str = $name;

            fn database() -> Database {
                let database = Database::$make();
                Self::connection(&database)
                    .batch_execute($create)
                    .expect("creates the business table");
                database
            }

            fn pool_with(database: &Database, settings: db::Settings) -> Db<Self> {
                Db::open(&database.url, settings).expect("opens")
            }

            fn connection(database: &Database) -> Self {
                let mut conn = Self::establish(&database.url).expect("connects");
                db::Backend::prepare(&mut conn, &db::Settings::default()).expect("prepares");
                conn
            }

            fn credit(tx: &mut Self, account: &str, cents: i64) -> QueryResult<()> {
                diesel::insert_into(ledger::table)
                    .values((ledger::account.eq(account), ledger::cents.eq(cents)))
                    .execute(tx)
                    .map(drop)
            }

            fn starts(conn: &mut Self) -> i64 {
                diesel::select(sql::<BigInt>("(SELECT count(*) FROM inbox_starts)"))
                    .get_result(conn)
                    .expect("counts")
            }

            fn credits(conn: &mut Self, account: &str) -> Vec<i64> {
                ledger::table
                    .filter(ledger::account.eq(account))
                    .order(ledger::id)
                    .select(ledger::cents)
                    .load(conn)
                    .expect("reads")
            }
        }
    };
}

store!(
    PgConnection,
    "postgres",
    postgres,
    "CREATE TABLE ledger (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account text NOT NULL, cents bigint NOT NULL)"
);
store!(
    SqliteConnection,
    "sqlite",
    sqlite,
    "CREATE TABLE ledger (id INTEGER PRIMARY KEY, account TEXT NOT NULL, cents INTEGER NOT NULL)"
);

/// How a delivery ended, as its observer was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The message.
    pub message_id: Option<String>,
    /// Its ending.
    pub ending: Ending,
    /// How often its handler ran.
    pub attempts: u32,
    /// Whether it was parked before.
    pub retried: bool,
    /// Whether the broker took the answer.
    pub answered: bool,
}

/// A running inbox.
pub struct Running {
    told: mpsc::UnboundedReceiver<Told>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), RunError>>,
}

impl Running {
    /// Starts an inbox.
    pub fn start<C: InboxConnection>(builder: Builder<C>) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let inbox = builder
            .observe(move |ended| {
                let message_id = ended.message_id.map(str::to_owned);
                let _ = tell.send(Told {
                    message_id,
                    ending: ended.ending,
                    attempts: ended.attempts,
                    retried: ended.retried,
                    answered: ended.answered,
                });
            })
            .build()
            .expect("builds");
        let task = tokio::spawn(inbox.run(async {
            let _ = stopped.await;
        }));
        Self { told, stop, task }
    }

    /// The next ending.
    pub async fn next(&mut self) -> Told {
        self.told.recv().await.expect("the inbox runs")
    }

    /// The next endings with the runs of the handler until then, sorted by these.
    pub async fn by_attempts(&mut self, count: usize) -> Vec<(Ending, u32)> {
        let mut told = Vec::with_capacity(count);
        for _ in 0..count {
            let next = self.next().await;
            told.push((next.ending, next.attempts));
        }
        told.sort_by_key(|(ending, attempts)| (*attempts, ending.as_str()));
        told
    }

    /// The next endings, sorted.
    pub async fn endings(&mut self, count: usize) -> Vec<Ending> {
        let mut endings = Vec::with_capacity(count);
        for _ in 0..count {
            endings.push(self.next().await.ending);
        }
        endings.sort_by_key(|ending| ending.as_str());
        endings
    }

    /// Tells it to stop, waits until it has, and returns the endings nobody has awaited.
    pub async fn stop(mut self) -> Vec<Told> {
        let _ = self.stop.send(());
        self.task.await.expect("no panic").expect("stops well");
        let mut rest = Vec::new();
        while let Ok(told) = self.told.try_recv() {
            rest.push(told);
        }
        rest
    }
}

/// Short for the ending of a parked delivery.
#[must_use]
pub const fn parked(reason: Reason) -> Ending {
    Ending::Parked(reason)
}

/// A builder whose handler credits the account and answers with the payment.
pub fn crediting<C: Store>(db: Db<C>, subscriber: Arc<dyn Subscriber>, queue: &str) -> Builder<C> {
    inbox::Inbox::new(BILLING, db, subscriber, queue).on(
        ReplaySafe,
        |tx: &mut C, payment: &Payment, _| {
            C::credit(tx, &payment.account, payment.cents)?;
            Ok(format!("receipt for {}", payment.payment))
        },
    )
}
