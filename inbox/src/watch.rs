use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::select;
use tokio::time::{MissedTickBehavior, interval};

use crate::DuplicateKind;
use crate::builder::InboxConnection;
use crate::ending::Ending;
use crate::engine::Engine;
use crate::spike::{Counts, Seen, Spikes};

/// Counts what has ended since it was last looked at: two additions per delivery.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    deliveries: AtomicU64,
    duplicates: AtomicU64,
}

impl Watch {
    /// A replay's duplicates are asked for and no sign of anything.
    pub(crate) fn ended(&self, ending: Ending, duplicate: Option<DuplicateKind>) {
        let counts = match ending {
            Ending::Applied | Ending::Stale => true,
            Ending::Duplicate => duplicate != Some(DuplicateKind::Replay),
            Ending::Parked(_) | Ending::Overtaken | Ending::Unsettled | Ending::Released => false,
        };
        if counts {
            self.deliveries.fetch_add(1, Ordering::Relaxed);
            self.duplicates.fetch_add(u64::from(duplicate.is_some()), Ordering::Relaxed);
        }
    }

    /// Duplicates first: one that ends in between is missing in the share, and never beyond it.
    fn take(&self) -> Counts {
        let duplicates = self.duplicates.swap(0, Ordering::Relaxed);
        Counts { deliveries: self.deliveries.swap(0, Ordering::Relaxed), duplicates }
    }
}

/// Looks at each interval's share of duplicates, until the inbox stops.
pub(crate) async fn run<C: InboxConnection>(engine: Arc<Engine<C>>) {
    let length = engine.settings.duplicate_interval;
    if length.is_zero() {
        return;
    }
    let mut ticks = interval(length);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first comes at once.
    ticks.tick().await;
    let mut spikes = Spikes::default();
    loop {
        select! {
            biased;
            () = engine.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let seen = spikes.interval(engine.watch.take());
        engine.telemetry.watched(seen);
        tell(&engine.consumer, seen);
    }
}

fn tell(consumer: &str, seen: Seen) {
    match seen {
        Seen::TooFew | Seen::Share(_) => {}
        Seen::Began { share, usual } => tracing::warn!(
            consumer,
            share,
            usual,
            "the share of duplicates has left its recent range; see the kinds of \
             counterfoil_inbox_duplicates_total for where they come from"
        ),
        Seen::Ended { share, usual, highest, stays: false } => tracing::warn!(
            consumer,
            share,
            usual,
            highest,
            "the share of duplicates is back in its range"
        ),
        Seen::Ended { share, usual, highest, stays: true } => tracing::warn!(
            consumer,
            share,
            usual,
            highest,
            "the share of duplicates stays where it is and is taken for usual from now on"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reason;

    #[test]
    fn replays_and_what_was_not_applied_stay_out_of_the_share() {
        let watch = Watch::default();
        for (ending, duplicate) in [
            (Ending::Applied, None),
            (Ending::Applied, None),
            (Ending::Duplicate, Some(DuplicateKind::Redelivery)),
            (Ending::Duplicate, Some(DuplicateKind::Replay)),
            (Ending::Parked(Reason::Conflict), None),
            (Ending::Unsettled, None),
            (Ending::Released, None),
        ] {
            watch.ended(ending, duplicate);
        }
        assert_eq!(watch.take(), Counts { deliveries: 3, duplicates: 1 });
        assert_eq!(watch.take(), Counts::default());
    }
}
