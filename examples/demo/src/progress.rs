use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

const REDRAW: Duration = Duration::from_millis(100);
/// Redraws between two lines.
const LINE_EVERY: u32 = 20;

/// How far the run is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Orders taken.
    pub(crate) orders: AtomicU64,
    /// Payments credited through the inbox.
    pub(crate) billing: AtomicU64,
    /// Credits given by the naive consumer.
    pub(crate) naive: AtomicU64,
}

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Bars, on a terminal.
    Bars,
    /// Now and then a line.
    Lines,
    /// Not at all.
    Quiet,
}

/// Something that shows progress until it is told to stop.
pub(crate) struct Shown {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Shown {
    /// Shows the final state and returns.
    pub(crate) async fn finish(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

/// Shows progress on standard error. `confirmed` is what the broker has taken from the relay.
pub(crate) fn show(
    style: Style,
    orders: u64,
    messages: u64,
    progress: Arc<Progress>,
    confirmed: impl Fn() -> u64 + Send + Sync + 'static,
) -> Shown {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let read = || {
            let counts = [&progress.orders, &progress.billing, &progress.naive];
            let [orders, billing, naive] = counts.map(|count| count.load(Ordering::Relaxed));
            [orders, confirmed(), billing, naive]
        };
        let bars = (style == Style::Bars).then(|| Bars::new(orders, messages));
        let mut ticks = interval(REDRAW);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut tick = 0;
        while stopped.run_until_cancelled(ticks.tick()).await.is_some() {
            tick += 1;
            match &bars {
                Some(bars) => bars.set(read()),
                None if style == Style::Lines && tick % LINE_EVERY == 0 => line(read()),
                None => {}
            }
        }
        match bars {
            Some(bars) => bars.finish(read()),
            None if style == Style::Lines => line(read()),
            None => {}
        }
    });
    Shown { stop, task }
}

fn line([orders, confirmed, billing, naive]: [u64; 4]) {
    eprintln!(
        "orders {orders} · published {confirmed} · credited by inbox {billing} · credited by naive {naive}"
    );
}

struct Bars {
    bars: [ProgressBar; 4],
    _all: MultiProgress,
}

impl Bars {
    fn new(orders: u64, messages: u64) -> Self {
        let all = MultiProgress::new();
        let style = ProgressStyle::with_template(
            "{prefix:>20} {bar:40.cyan/blue} {human_pos:>7} of {human_len}",
        )
        .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = |name: &'static str, length| {
            all.add(ProgressBar::new(length).with_style(style.clone()).with_prefix(name))
        };
        let bars = [
            bar("orders taken", orders),
            bar("messages published", messages),
            bar("credited, inbox", orders),
            bar("credited, naive", orders),
        ];
        Self { bars, _all: all }
    }

    fn set(&self, counts: [u64; 4]) {
        self.bars.iter().zip(counts).for_each(|(bar, count)| bar.set_position(count));
    }

    fn finish(&self, counts: [u64; 4]) {
        self.set(counts);
        self.bars.iter().for_each(ProgressBar::abandon);
    }
}
