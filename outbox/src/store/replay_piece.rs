//! What the stores make of a piece of the log.

use message::MessageId;

use crate::reader::{Entry, ReadLimit};
pub(crate) use crate::replay::PIECE;
use crate::replay::{Counted, ReplayPiece};

/// What of a piece fits.
pub(crate) struct Picked {
    /// Whether the piece had as many rows as it may have, so that more can follow.
    pub(crate) full: bool,
    /// The last place looked at.
    pub(crate) last: i64,
    /// The places that fit, up to the limit of rows.
    pub(crate) seqs: Vec<i64>,
}

/// Where a replay stands once what was fetched of a piece is settled. Rows that were picked and are
/// gone by the time they are fetched were deleted in between, and are passed.
pub(crate) fn piece(picked: Picked, entries: Vec<Entry>, limit: ReadLimit) -> ReplayPiece {
    let last_picked = picked.seqs.last().copied();
    let last_fetched = entries.last().map(|entry| entry.seq);
    let next = match (last_fetched, last_picked) {
        // The limit of bytes cut it short.
        (Some(fetched), Some(picked)) if fetched < picked => fetched,
        (_, Some(last)) if picked.seqs.len() >= limit.rows as usize => last,
        _ => picked.last,
    };
    ReplayPiece { entries, next, exhausted: !picked.full && next >= picked.last }
}

/// A count by kind, with one group without a kind for the piece itself.
pub(crate) fn counted(
    groups: impl Iterator<Item = (Option<String>, i64, i64, i64, Option<String>)>,
    rows: u32,
) -> Counted {
    let mut all = Counted::default();
    for (kind, count, first, last, ids) in groups {
        match kind {
            Some(kind) => all.kinds.push((kind, count, first, last)),
            None => all.next = (count >= i64::from(rows)).then_some(last),
        }
        let ids: Vec<String> =
            ids.and_then(|ids| serde_json::from_str(&ids).ok()).unwrap_or_default();
        all.ids.extend(ids.iter().filter_map(|id| id.parse::<MessageId>().ok()));
    }
    all
}
