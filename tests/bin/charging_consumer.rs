//! A consumer that charges at a provider before it books: `charging_consumer TOLD ADDRESS QUEUE PROVIDER POLICY`. It
//! writes each ending and its operation to the file TOLD; POLICY is `repeat_safe`, `ask` or `review`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test program that cannot go on fails its test"
)]

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use db::Db;
use diesel::PgConnection;
use inbox::{Context, Failure, Handler, Inbox, OnReplay, Settings};
use support::bookings::{Booking, book};
use support::broker::rabbitmq;
use support::effects::CHARGE;
use support::inbox::BILLING;
use support::provider::{charge, inquire};
use tokio::signal::unix::{SignalKind, signal};

struct Charging {
    provider: String,
    policy: String,
}

impl Handler<PgConnection> for Charging {
    const ON_REPLAY: OnReplay = OnReplay::SideEffects;
    type Event = Booking;
    type Prepared = u32;
    type Receipt = i64;

    async fn prepare(&self, _: &Booking, context: &Context<'_>) -> Result<u32, Failure> {
        let effects = context.effects();
        let effect = effects.effect(CHARGE);
        let effect = match &*self.policy {
            "repeat_safe" => effect.repeat_safe(),
            "ask" => effect.ask(|key| inquire(&self.provider, key)),
            "review" => effect.review(),
            other => panic!("no policy {other}"),
        };
        Ok(effect.once(|key| charge(&self.provider, key)).await?)
    }

    fn apply(
        &self,
        tx: &mut PgConnection,
        booking: &Booking,
        _: &u32,
        _: &Context<'_>,
    ) -> Result<i64, Failure> {
        book(tx, booking)?;
        Ok(booking.number)
    }
}

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new("error"))
        .with_writer(std::io::stderr)
        .init();
    let orders: Vec<String> = std::env::args().skip(1).collect();
    let [told, address, queue, provider, policy] = &orders[..] else { panic!("five arguments") };
    let told = File::options().create_new(true).append(true).open(told).expect("a new file");
    let db = Db::<PgConnection>::connect(address, db::Settings::default()).await.expect("connects");
    let mut settings = Settings::default();
    settings.concurrency = 4;
    settings.prefetch = 4;
    settings.max_attempts = 1_000;
    // Kills are the test's; none of its messages is to blame.
    settings.crash_limit = 100;
    settings.backoff = Duration::from_millis(10);
    // Two calls in five are lost: doubled each time, the pauses of some would outlast the test.
    settings.backoff_max = Duration::from_secs(1);
    settings.retry_poll = Duration::from_millis(50);
    settings.effects.deadline = Duration::from_secs(1);
    settings.effects.grace = Duration::from_millis(500);
    settings.effects.ask_pause = Duration::from_millis(100);
    settings.effects.poll = Duration::from_millis(100);
    let asked = provider.clone();
    let inbox = Inbox::new(BILLING, db, Arc::new(rabbitmq()), queue)
        .handler(Charging { provider: provider.clone(), policy: policy.clone() })
        .reconcile(CHARGE, move |question| {
            let asked = asked.clone();
            async move { inquire(&asked, question.key).await }
        })
        .settings(settings)
        .observe(move |ended| {
            let operation = ended.operation.map_or("-", |operation| operation.id());
            // In one piece, so that a kill leaves it whole or not at all.
            let line = format!("{} {operation}\n", ended.ending);
            (&told).write_all(line.as_bytes()).expect("written");
        })
        .build()
        .expect("builds");
    let mut stop = signal(SignalKind::terminate()).expect("a handler");
    let stopped = async move {
        stop.recv().await;
    };
    inbox.run(stopped).await.expect("stops well");
}
