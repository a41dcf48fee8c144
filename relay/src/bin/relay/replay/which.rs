use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use clap::Args;
use message::MessageId;
use outbox::replay::Selection;

/// Which part of the history. What is given must all fit.
#[derive(Args, Debug)]
pub(super) struct Which {
    /// From this place in the log on.
    #[arg(long, value_name = "SEQ")]
    from_seq: Option<i64>,
    /// Up to this place, included.
    #[arg(long, value_name = "SEQ")]
    to_seq: Option<i64>,
    /// Stored at this time or later, as in 2026-11-25T08:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<SystemTime>,
    /// Stored before this time.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<SystemTime>,
    /// Only this kind; may be given several times.
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
    /// Only this ordering key; may be given several times.
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// Only this operation; may be given several times.
    #[arg(long = "operation", value_name = "ID")]
    operations: Vec<String>,
    /// Only this message; may be given several times.
    #[arg(long = "id", value_name = "UUID")]
    ids: Vec<MessageId>,
    /// Only the messages that this file names, one id a line.
    #[arg(long, value_name = "FILE")]
    ids_from: Option<PathBuf>,
    /// All of the kept history, and not a part of it.
    #[arg(long)]
    all: bool,
}

fn time(text: &str) -> Result<SystemTime, String> {
    humantime::parse_rfc3339_weak(text)
        .map_err(|error| format!("{error}; write it in UTC as 2026-11-25T08:00:00Z"))
}

impl Which {
    /// Everything must be asked for by name: a forgotten flag should not mean it.
    pub(super) fn selection(&self) -> Result<Selection> {
        let mut ids = self.ids.clone();
        if let Some(path) = &self.ids_from {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the ids in {}", path.display()))?;
            for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
                let id = line.parse().with_context(|| format!("{line:?} is no message id"))?;
                ids.push(id);
            }
            if ids.is_empty() {
                bail!("{} names no message", path.display());
            }
        }
        let list = |values: &Vec<String>| (!values.is_empty()).then(|| values.clone());
        let selection = Selection {
            from_seq: self.from_seq,
            to_seq: self.to_seq,
            since: self.since,
            until: self.until,
            kinds: list(&self.kinds),
            keys: list(&self.keys),
            operations: list(&self.operations),
            ids: (!ids.is_empty()).then_some(ids),
        };
        if selection == Selection::default() && !self.all {
            bail!(
                "which messages? Name them by --from-seq, --to-seq, --since, --until, --kind, --key, --operation, --id or --ids-from, or say --all"
            );
        }
        Ok(selection)
    }
}
