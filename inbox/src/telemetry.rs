//! Metric names of this crate. Those of deliveries carry the label `consumer`, those of state machines
//! `machine`; none a key or an id, nor a kind that has no handler.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::effect::{Answer, CallEnded, Ending as EffectEnding, LookedAfter};
use crate::ending::{End, Ending};
use crate::reply::Replied;
use crate::retention::Purged;
use crate::spike::Seen;
use crate::{DuplicateKind, OnReplay};

/// Deliveries by how they ended; label `ending`, see [`Ending::as_str`].
pub const DELIVERIES: &str = "counterfoil_inbox_deliveries_total";
/// Duplicates by how they came again; label `kind`, see [`DuplicateKind::as_str`].
pub const DUPLICATES: &str = "counterfoil_inbox_duplicates_total";
/// Duplicates among what was applied or found applied in the last judged interval, 0 to 1; replays are
/// not counted.
pub const DUPLICATE_SHARE: &str = "counterfoil_inbox_duplicate_share";
/// Times that share has left its recent range.
pub const DUPLICATE_SPIKES: &str = "counterfoil_inbox_duplicate_spikes_total";
/// Messages applied although they were older, by their `timestamp`, than operations are kept: had they
/// been applied before, nobody could tell any more.
pub const BEYOND_WINDOW: &str = "counterfoil_inbox_beyond_window_total";
/// What retention removed; label `what`: `operations`, `results`, `effects`, `starts` or `parked`.
pub const PURGED: &str = "counterfoil_inbox_purged_total";
/// Retries of parked messages by how they ended; label `ending`.
pub const RETRIES: &str = "counterfoil_inbox_retries_total";
/// Batches by what became of them; label `outcome`: `committed`, or `undone` where one of the messages failed and
/// all went on alone.
pub const BATCHES: &str = "counterfoil_inbox_batches_total";
/// Handlers that gave no answer within their deadline.
pub const HUNG: &str = "counterfoil_inbox_hung_total";
/// Whole transactions repeated over contention.
pub const TRANSACTIONS_REPEATED: &str = "counterfoil_inbox_transactions_repeated_total";
/// Handlers that panicked.
pub const PANICS: &str = "counterfoil_inbox_panics_total";
/// Pauses of a delivery because the database was unavailable or its operation held elsewhere.
pub const WAITS: &str = "counterfoil_inbox_waits_total";
/// Answers the broker did not take: the message comes again, as a duplicate where it was applied.
pub const ANSWERS_LOST: &str = "counterfoil_inbox_answers_lost_total";
/// Replies to commands by what became of them; label `outcome`: `sent`; `refused` by the broker, as a rule
/// because nobody waits any more; `not_allowed` by [`Builder::replies`](crate::Builder::replies); `lost` with
/// the broker.
pub const REPLIES: &str = "counterfoil_inbox_replies_total";
/// Subscriptions opened.
pub const SUBSCRIPTIONS: &str = "counterfoil_inbox_subscriptions_total";
/// Failures to subscribe, and subscriptions that ended on an error.
pub const SUBSCRIPTIONS_LOST: &str = "counterfoil_inbox_subscriptions_lost_total";
/// Seconds from receipt to the answer, attempts and pauses included.
pub const SECONDS: &str = "counterfoil_inbox_receive_to_answer_seconds";

/// 1 for each handler; labels `kind`, and `on_replay` for what a replay may do with it, see
/// [`OnReplay::as_str`].
pub const HANDLERS: &str = "counterfoil_inbox_handlers";

/// Effects by how a demand for one, or a question about one, ended; label `ending`, see
/// [`effect::Ending::as_str`](crate::effect::Ending::as_str).
pub const EFFECTS: &str = "counterfoil_inbox_effects_total";
/// Effects whose outcome is unknown, at the last look; those that wait for a person are among them.
pub const EFFECTS_UNKNOWN: &str = "counterfoil_inbox_effects_unknown";
/// Seconds that a call to a provider took; label `ended`: `answered`, whatever the provider said, `timed_out`,
/// `panicked`, or `not_begun` where its time was over before.
pub const EFFECT_CALL_SECONDS: &str = "counterfoil_inbox_effect_call_seconds";
/// Effects that wait for a person's decision, at the last look.
pub const EFFECTS_IN_REVIEW: &str = "counterfoil_inbox_effects_in_review";

/// Events judged by a state machine; labels `machine` and `verdict`, see
/// [`Verdict::as_str`](crate::transition::Verdict::as_str). Counted when they are judged: a transaction
/// that is repeated or rolled back has counted too.
pub const TRANSITIONS: &str = "counterfoil_inbox_transitions_total";

/// Looked up each time: a machine may be declared before a recorder is installed, and both labels are
/// static.
pub(crate) fn transition(machine: &'static str, verdict: &'static str) {
    counter!(TRANSITIONS, "machine" => machine, "verdict" => verdict).increment(1);
}

/// Says which handlers there are. Nothing else lists what is safe to replay.
pub(crate) fn handlers(consumer: &str, handlers: &[(&'static str, OnReplay)]) {
    for (kind, on_replay) in handlers {
        gauge!(HANDLERS, "consumer" => consumer.to_owned(), "kind" => *kind, "on_replay" => on_replay.as_str()).set(1.0);
    }
}

/// Handles kept for the life of an inbox: a lookup by name per delivery costs more than the count.
pub(crate) struct Telemetry {
    endings: [Counter; Ending::ALL.len()],
    retries: [Counter; Ending::ALL.len()],
    duplicates: [Counter; DuplicateKind::ALL.len()],
    duplicate_share: Gauge,
    duplicate_spikes: Counter,
    pub(crate) beyond_window: Counter,
    purged: [Counter; 5],
    pub(crate) batches_committed: Counter,
    pub(crate) batches_undone: Counter,
    pub(crate) hung: Counter,
    pub(crate) transactions_repeated: Counter,
    pub(crate) panics: Counter,
    pub(crate) waits: Counter,
    pub(crate) answers_lost: Counter,
    replies: [Counter; Replied::ALL.len()],
    pub(crate) subscriptions: Counter,
    pub(crate) subscriptions_lost: Counter,
    seconds: Histogram,
}

impl Telemetry {
    pub(crate) fn new(consumer: &str) -> Self {
        let named = |name| counter!(name, "consumer" => consumer.to_owned());
        let by_ending = |name| {
            Ending::ALL.map(
                |ending| counter!(name, "consumer" => consumer.to_owned(), "ending" => ending.as_str()),
            )
        };
        Self {
            endings: by_ending(DELIVERIES),
            retries: by_ending(RETRIES),
            duplicates: DuplicateKind::ALL.map(
                |kind| counter!(DUPLICATES, "consumer" => consumer.to_owned(), "kind" => kind.as_str()),
            ),
            duplicate_share: gauge!(DUPLICATE_SHARE, "consumer" => consumer.to_owned()),
            duplicate_spikes: named(DUPLICATE_SPIKES),
            beyond_window: named(BEYOND_WINDOW),
            purged: ["operations", "results", "effects", "starts", "parked"]
                .map(|what| counter!(PURGED, "consumer" => consumer.to_owned(), "what" => what)),
            batches_committed: counter!(BATCHES, "consumer" => consumer.to_owned(), "outcome" => "committed"),
            batches_undone: counter!(BATCHES, "consumer" => consumer.to_owned(), "outcome" => "undone"),
            hung: named(HUNG),
            transactions_repeated: named(TRANSACTIONS_REPEATED),
            panics: named(PANICS),
            waits: named(WAITS),
            answers_lost: named(ANSWERS_LOST),
            replies: Replied::ALL.map(|replied| {
                counter!(REPLIES, "consumer" => consumer.to_owned(), "outcome" => replied.as_str())
            }),
            subscriptions: named(SUBSCRIPTIONS),
            subscriptions_lost: named(SUBSCRIPTIONS_LOST),
            seconds: histogram!(SECONDS, "consumer" => consumer.to_owned()),
        }
    }

    pub(crate) fn ended(&self, end: End, retried: bool, after: Duration) {
        let End { ending, duplicate, .. } = end;
        if let Some(at) = DuplicateKind::ALL.iter().position(|kind| Some(*kind) == duplicate) {
            self.duplicates[at].increment(1);
        }
        let counters = if retried { &self.retries } else { &self.endings };
        if let Some(at) = Ending::ALL.iter().position(|candidate| *candidate == ending) {
            counters[at].increment(1);
        }
        // Of a retry nobody is waiting for the answer.
        if !retried {
            self.seconds.record(after);
        }
    }

    pub(crate) fn replied(&self, replied: Replied) {
        if let Some(at) = Replied::ALL.iter().position(|candidate| *candidate == replied) {
            self.replies[at].increment(1);
        }
    }

    pub(crate) fn watched(&self, seen: Seen) {
        let share = match seen {
            Seen::TooFew => return,
            Seen::Began { share, .. } => {
                self.duplicate_spikes.increment(1);
                share
            }
            Seen::Share(share) | Seen::Ended { share, .. } => share,
        };
        self.duplicate_share.set(share);
    }

    pub(crate) fn purged(&self, purged: &Purged) {
        let counts =
            [purged.operations, purged.results, purged.effects, purged.starts, purged.parked];
        for (counter, count) in self.purged.iter().zip(counts) {
            counter.increment(count);
        }
    }
}

/// Handles kept for the life of a ledger.
pub(crate) struct EffectTelemetry {
    endings: [Counter; EffectEnding::ALL.len()],
    unknown: Gauge,
    in_review: Gauge,
    calls: [Histogram; CallEnded::ALL.len()],
}

impl EffectTelemetry {
    pub(crate) fn new(consumer: &str) -> Self {
        Self {
            endings: EffectEnding::ALL.map(
                |ending| counter!(EFFECTS, "consumer" => consumer.to_owned(), "ending" => ending.as_str()),
            ),
            unknown: gauge!(EFFECTS_UNKNOWN, "consumer" => consumer.to_owned()),
            in_review: gauge!(EFFECTS_IN_REVIEW, "consumer" => consumer.to_owned()),
            calls: CallEnded::ALL.map(|ended| {
                histogram!(EFFECT_CALL_SECONDS, "consumer" => consumer.to_owned(), "ended" => ended.as_str())
            }),
        }
    }

    pub(crate) fn called(&self, ended: CallEnded, after: Duration) {
        if let Some(at) = CallEnded::ALL.iter().position(|candidate| *candidate == ended) {
            self.calls[at].record(after);
        }
    }

    pub(crate) fn ended(&self, ending: EffectEnding) {
        self.count(ending, 1);
    }

    pub(crate) fn asked<R>(&self, answer: &Answer<R>) {
        self.ended(match answer {
            Answer::Done(_) => EffectEnding::AskedDone,
            Answer::NotDone => EffectEnding::AskedNotDone,
            Answer::StillUnknown => EffectEnding::AskedUnknown,
        });
    }

    pub(crate) fn looked_after(&self, LookedAfter { lapsed, .. }: LookedAfter) {
        self.count(EffectEnding::Lapsed, lapsed as u64);
    }

    fn count(&self, ending: EffectEnding, times: u64) {
        if let Some(at) = EffectEnding::ALL.iter().position(|candidate| *candidate == ending) {
            self.endings[at].increment(times);
        }
    }

    /// Counts from the database are far below what a float holds exactly.
    #[expect(clippy::cast_precision_loss, reason = "counts of rows")]
    pub(crate) fn figures(&self, unknown: i64, in_review: i64) {
        self.unknown.set(unknown as f64);
        self.in_review.set(in_review as f64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use metrics::{Key, KeyName, Metadata, Recorder, SharedString, Unit, with_local_recorder};

    use super::*;

    /// Series by name and labels.
    #[derive(Default)]
    struct Recorded(Mutex<BTreeMap<String, Arc<std::sync::atomic::AtomicU64>>>);

    impl Recorder for Recorded {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            let labels: Vec<_> =
                key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let series = format!("{} {}", key.name(), labels.join(","));
            Counter::from_arc(self.0.lock().expect("no panic").entry(series).or_default().clone())
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn each_ending_counts_in_a_series_of_its_own() {
        let recorded = Recorded::default();
        let telemetry = with_local_recorder(&recorded, || Telemetry::new("billing"));
        for (times, ending) in Ending::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| telemetry.ended(End::of(ending, 0), false, Duration::ZERO));
        }
        let series = recorded.0.lock().expect("no panic");
        for (times, ending) in Ending::ALL.into_iter().enumerate() {
            let name = format!("{DELIVERIES} consumer=billing,ending={ending}");
            let count = series.get(&name).expect("registered before it happens");
            assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), times as u64, "{name}");
        }
        let others = series.keys().filter(|name| name.ends_with(" consumer=billing"));
        assert_eq!(others.count(), 9);
    }

    #[test]
    fn each_kind_of_duplicate_counts_in_a_series_of_its_own() {
        let recorded = Recorded::default();
        let telemetry = with_local_recorder(&recorded, || Telemetry::new("billing"));
        for (times, kind) in DuplicateKind::ALL.into_iter().enumerate() {
            let end = End { duplicate: Some(kind), ..End::of(Ending::Duplicate, 0) };
            (0..times).for_each(|_| telemetry.ended(end, false, Duration::ZERO));
        }
        telemetry.ended(End::of(Ending::Applied, 1), false, Duration::ZERO);
        let series = recorded.0.lock().expect("no panic");
        for (times, kind) in DuplicateKind::ALL.into_iter().enumerate() {
            let name = format!("{DUPLICATES} consumer=billing,kind={kind}");
            let count = series.get(&name).expect("registered before it happens");
            assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), times as u64, "{name}");
        }
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn each_verdict_of_a_machine_counts_in_a_series_of_its_own() {
        use diesel::{Connection, SqliteConnection};

        use crate::transition::Verdict::{Duplicate, Early, Review, Stale, To};
        use crate::transition::{Cause, Label, Machine, labels};

        labels! {
            enum State { Only = "only" }
            enum Event { A = "to", B = "duplicate", C = "stale", D = "early", E = "review" }
        }
        let verdicts = [To(State::Only), Duplicate, Stale, Early, Review];
        let rules = Event::ALL.iter().zip(verdicts);
        let rules = rules.map(|(event, verdict)| (State::Only, *event, verdict));
        let machine = Machine::new("m", State::Only, rules, Review).expect("valid");
        let mut conn = SqliteConnection::establish(":memory:").expect("opens");
        migrations::run(&mut conn).expect("migrates");

        let recorded = Recorded::default();
        with_local_recorder(&recorded, || {
            for (times, event) in Event::ALL.iter().enumerate() {
                for _ in 0..=times {
                    let tx = |tx: &mut _| machine.apply(tx, "e", *event, Cause::unknown());
                    let _ = conn.immediate_transaction(tx).expect("is judged");
                }
            }
        });
        let series = recorded.0.lock().expect("no panic");
        for (times, event) in Event::ALL.iter().enumerate() {
            let name = format!("{TRANSITIONS} machine=m,verdict={}", event.name());
            let count = series.get(&name).expect("counted");
            assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), times as u64 + 1, "{name}");
        }
    }
}
