use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

/// Figures of a run under stable names.
#[derive(Debug, Default)]
pub struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// Notes a figure and prints it.
    pub fn note(&mut self, name: &str, value: f64) {
        println!("{name} = {value:.3}");
        self.0.insert(name.to_owned(), value);
    }

    /// Writes all of them as one JSON object.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.0)?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The value that `share` of the measurements do not exceed.
    #[must_use]
    pub fn quantile(values: &[f64], share: f64) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
    }

    /// The median of some measurements.
    #[must_use]
    pub fn median(values: &[f64]) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        match (sorted.len() / 2, sorted.len() % 2) {
            (_, _) if sorted.is_empty() => f64::NAN,
            (middle, 1) => sorted[middle],
            (middle, _) => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }
}
