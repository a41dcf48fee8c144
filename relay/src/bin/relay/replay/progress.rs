use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use outbox::replay::ReplayJob;
use relay::replay::ReplayProgress;
use serde_json::json;

use crate::operator::Output;
use crate::output;

/// How often a program is told.
const EVERY: Duration = Duration::from_secs(1);

/// Shows how far a replay has come: a bar on a terminal, lines of JSON for programs.
pub(super) struct Progress {
    id: i64,
    json: bool,
    bar: ProgressBar,
    told: Instant,
}

impl Progress {
    pub(super) fn of(job: &ReplayJob, output: Output) -> Result<Self> {
        let bar = if output.json {
            output::json_line(&json!({
                "event": "started", "id": job.id, "consumer": job.consumer, "queue": job.queue,
                "total": job.total, "sent": job.sent, "position": job.position, "last_seq": job.last_seq,
            }))?;
            ProgressBar::hidden()
        } else {
            // Drawn on a terminal only.
            ProgressBar::new(job.total).with_position(job.sent)
        };
        if let Ok(style) = ProgressStyle::with_template(
            "{bar:40} {pos}/{len} messages, {per_sec}, {elapsed}, {eta} to go",
        ) {
            bar.set_style(style);
        }
        Ok(Self { id: job.id, json: output.json, bar, told: Instant::now() })
    }

    pub(super) fn moved(&mut self, to: ReplayProgress) {
        self.bar.set_position(to.sent + to.unsendable);
        if self.json && self.told.elapsed() >= EVERY {
            self.told = Instant::now();
            // Who does not listen any more is no reason to stop.
            let _ = output::json_line(&json!({
                "event": "progress", "id": self.id, "sent": to.sent, "unsendable": to.unsendable,
                "total": to.total, "position": to.position,
            }));
        }
    }

    pub(super) fn ended(&self) {
        self.bar.finish_and_clear();
    }
}
