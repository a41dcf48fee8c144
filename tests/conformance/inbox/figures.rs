//! What a running inbox exports: all that is documented, and what a rise of duplicates adds to it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use inbox::telemetry::{DUPLICATE_SHARE, DUPLICATE_SPIKES, DUPLICATES};
use inbox::{Consumer, Ending, Inbox, ReplaySafe, Settings};
use support::feed::Feed;
use support::inbox::{Payment, Running, Store};
use support::recorded::Recorded;

use super::on_both;

on_both!(every_series_is_documented_with_its_labels, a_rise_of_duplicates_is_counted_once);

const DOCUMENT: &str = include_str!("../../../docs/metrics.md");

/// Names with their labels, from the table of the document.
fn documented() -> BTreeSet<(String, BTreeSet<String>)> {
    // Those of state machines belong to no consumer.
    let (deliveries, _) = DOCUMENT.split_once("### State machines").expect("a section of its own");
    let rows = deliveries.lines().filter(|line| line.starts_with("| `counterfoil_inbox_"));
    let bare = |text: &str| text.trim().trim_matches('`').to_owned();
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        let further = cells[3].split(',').map(bare).filter(|label| !label.is_empty());
        (bare(cells[1]), further.chain(["consumer".to_owned()]).collect())
    })
    .collect()
}

fn inbox_of<C: Store>(
    consumer: &str,
    database: &support::database::Database,
    feed: &Feed,
    settings: Settings,
) -> inbox::Builder<C> {
    Inbox::new(Consumer(consumer), C::pool(database), Arc::new(feed.clone()), "q")
        .settings(settings)
        .on(ReplaySafe, |tx: &mut C, payment: &Payment, _| {
            C::credit(tx, &payment.account, payment.cents)?;
            Ok(())
        })
}

async fn every_series_is_documented_with_its_labels<C: Store>() {
    let consumer = format!("documented-{}", C::NAME);
    let recorded = Recorded::install();
    let (database, feed) = (C::database(), Feed::new());
    let mut running =
        Running::start(inbox_of::<C>(&consumer, &database, &feed, Settings::default()));
    feed.deliver(&Payment::new("p1", 50).message());
    assert_eq!(running.next().await.ending, Ending::Applied);
    running.stop().await;
    let ours = format!("consumer={consumer}");
    let exported: BTreeSet<_> = recorded
        .series("counterfoil_inbox_")
        .into_iter()
        .filter_map(|series| {
            let (name, labels) = series.split_once(' ')?;
            let labels: Vec<_> = labels.split(',').collect();
            let names = labels.iter().filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            labels.contains(&&*ours).then(|| (name.to_owned(), names.collect::<BTreeSet<_>>()))
        })
        .collect();
    assert_eq!(exported, documented());
}

async fn a_rise_of_duplicates_is_counted_once<C: Store>() {
    const MANY: usize = 60;
    let consumer = format!("risen-{}", C::NAME);
    let recorded = Recorded::install();
    let (database, feed) = (C::database(), Feed::new());
    let mut settings = Settings::default();
    settings.duplicate_interval = Duration::from_millis(1);
    let mut running = Running::start(inbox_of::<C>(&consumer, &database, &feed, settings));
    let spikes = || recorded.counter(&format!("{DUPLICATE_SPIKES} consumer={consumer}"));
    let share = || recorded.gauge(&format!("{DUPLICATE_SHARE} consumer={consumer}"));
    // Nothing but first times, until there is a range to leave: each hundred is judged at least once.
    for number in 0..6 * 2 * MANY {
        feed.deliver(&Payment::new(&format!("p{number}"), 1).message());
        running.next().await;
    }
    support::eventually("a share is known", async || share() == Some(0.0)).await;
    assert_eq!(spikes(), Some(0));
    let again = Payment::new("p1", 1).message();
    for _ in 0..2 * MANY {
        feed.deliver(&again);
        assert_eq!(running.next().await.ending, Ending::Duplicate);
    }
    support::eventually("a spike has begun", async || spikes() == Some(1)).await;
    assert!(share().is_some_and(|share| share > 0.1));
    // It began once, however long it lasts.
    for _ in 0..2 * MANY {
        feed.deliver(&again);
        running.next().await;
    }
    running.stop().await;
    assert_eq!(spikes(), Some(1));
    let counted = recorded.counter(&format!("{DUPLICATES} consumer={consumer},kind=other_message"));
    assert_eq!(counted, Some(4 * MANY as u64));
}
