use std::sync::Arc;
use std::time::{Duration, SystemTime};

use db::CallError;
use tokio::select;
use tokio::time::sleep;

use crate::Consumer;
use crate::builder::InboxConnection;
use crate::ending::Ending;
use crate::engine::Engine;
use crate::incoming::Incoming;
use crate::retention::{Progress, Purged, Retention, purge};

/// Purges from time to time, until the inbox stops. Nobody waits for it: a call that fails is made
/// again in the next round.
pub(crate) async fn run<C: InboxConnection>(engine: Arc<Engine<C>>) {
    let Some(retention) = engine.settings.retention.clone() else { return };
    let mut progress = Progress::default();
    loop {
        select! {
            biased;
            () = engine.stop.cancelled() => return,
            // Several processes of one consumer purge at different times.
            () = sleep(jittered(retention.every)) => {}
        }
        let mut all = Purged::default();
        while !engine.stop.is_cancelled() {
            let stepped = select! {
                biased;
                () = engine.stop.cancelled() => return,
                stepped = step(&engine, &retention, &progress) => stepped,
            };
            match stepped {
                Ok((purged, next)) => {
                    progress = next;
                    engine.telemetry.purged(&purged);
                    all = sum(all, purged);
                    if purged.done {
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(consumer = engine.consumer, reason = %error, "cannot purge now");
                    break;
                }
            }
        }
        if sum(all, Purged::default()) != Purged::default() {
            tracing::info!(
                consumer = engine.consumer,
                operations = all.operations,
                results = all.results,
                effects = all.effects,
                starts = all.starts,
                parked = all.parked,
                "purged"
            );
        }
    }
}

/// One call on a connection of the pool, given back after it: deliveries go before.
async fn step<C: InboxConnection>(
    engine: &Arc<Engine<C>>,
    retention: &Retention,
    progress: &Progress,
) -> Result<(Purged, Progress), CallError<diesel::result::Error>> {
    let (on, retention, mut progress) = (engine.clone(), retention.clone(), progress.clone());
    let call = engine.db.call_within(engine.settings.handler_deadline, move |conn| {
        let purged = purge(conn, Consumer(&on.consumer), &retention, &mut progress)?;
        Ok((purged, progress))
    });
    call.await
}

fn sum(a: Purged, b: Purged) -> Purged {
    Purged {
        operations: a.operations + b.operations,
        results: a.results + b.results,
        effects: a.effects + b.effects,
        starts: a.starts + b.starts,
        parked: a.parked + b.parked,
        done: false,
    }
}

/// Three quarters to one and a quarter of it, and of a year at most.
fn jittered(pause: Duration) -> Duration {
    const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    pause.min(LONGEST).mul_f64(0.75 + fastrand::f64() / 2.0)
}

impl<C: InboxConnection> Engine<C> {
    /// A message older than operations are kept was applied: if it is a late duplicate, nobody can
    /// tell any more.
    pub(crate) fn warn_beyond_window(&self, incoming: &Incoming, ending: Ending) {
        let Some(retention) = &self.settings.retention else { return };
        let age = incoming.timestamp.and_then(|made| SystemTime::now().duration_since(made).ok());
        let Some(age) = age.filter(|age| *age > retention.operations) else { return };
        if matches!(ending, Ending::Applied | Ending::Stale) {
            self.telemetry.beyond_window.increment(1);
            tracing::warn!(
                consumer = self.consumer,
                message_id = incoming.message_id.as_deref(),
                age = %humantime::format_duration(Duration::from_secs(age.as_secs())),
                kept = %humantime::format_duration(retention.operations),
                "applied a message older than operations are kept; an earlier time would not be known any more"
            );
        }
    }
}
