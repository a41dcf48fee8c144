//! What was counted, for tests that look.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

/// The recorder of this process. Series of several tests in one process are told apart by their
/// labels: give a consumer that is looked at a name of its own.
#[derive(Clone, Debug, Default)]
pub struct Recorded(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

impl Recorded {
    /// Installs it, where it is not yet. Do so before what counts is built.
    #[must_use]
    pub fn install() -> Self {
        static INSTALLED: OnceLock<Recorded> = OnceLock::new();
        let install = || {
            let recorded = Self::default();
            metrics::set_global_recorder(recorded.clone()).expect("nobody else installs one");
            recorded
        };
        INSTALLED.get_or_init(install).clone()
    }

    /// A counter's value, or the number of values in a histogram: `name label=value,…`, the labels in their order. `None` where it was never
    /// registered.
    #[must_use]
    pub fn counter(&self, series: &str) -> Option<u64> {
        Some(self.0.lock().unwrap().get(series)?.load(Ordering::SeqCst))
    }

    /// A gauge's value.
    #[must_use]
    pub fn gauge(&self, series: &str) -> Option<f64> {
        self.counter(series).map(f64::from_bits)
    }

    /// Every series whose name begins with this, labels included.
    #[must_use]
    pub fn series(&self, prefix: &str) -> Vec<String> {
        let all = self.0.lock().unwrap();
        all.keys().filter(|series| series.starts_with(prefix)).cloned().collect()
    }

    fn slot(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<_> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let series = format!("{} {}", key.name(), labels.join(","));
        self.0.lock().unwrap().entry(series).or_default().clone()
    }
}

/// Of a histogram only the number of its values is kept: no test asserts a time.
struct Counted(Arc<AtomicU64>);

impl HistogramFn for Counted {
    fn record(&self, _: f64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.slot(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.slot(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Counted(self.slot(key))))
    }
}
