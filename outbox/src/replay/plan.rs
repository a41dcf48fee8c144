use std::collections::BTreeMap;
use std::time::SystemTime;

use message::MessageId;

use super::{ReplayStore, Selection};
use crate::admin::AdminError;

/// Rows of the log looked at by one statement, so that none runs into a time limit however little
/// fits and however long the log is.
pub(crate) const PIECE: u32 = 20_000;

/// What a replay would send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayPlan {
    /// How many messages fit.
    pub total: u64,
    /// The same by kind.
    pub kinds: BTreeMap<String, u64>,
    /// The first one's place and the last one's; `None` when nothing fits.
    pub span: Option<(i64, i64)>,
    /// The first row the log still has; `None` when it is empty.
    pub first_kept: Option<Edge>,
    /// Ids that were asked for and are not in the log, or fit nothing else that was asked for.
    pub missing_ids: Vec<MessageId>,
    /// The selection begins before what is kept: it may miss messages that retention deleted.
    pub gap: bool,
}

/// A row at the edge of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Its place.
    pub seq: i64,
    /// When it was stored, by the database's clock.
    pub created_at: SystemTime,
}

/// What one piece of the log has.
#[derive(Debug, Default)]
pub struct Counted {
    /// By kind, with the first and the last place.
    pub(crate) kinds: Vec<(String, i64, i64, i64)>,
    /// The ids found, where ids were asked for.
    pub(crate) ids: Vec<MessageId>,
    /// Where the next piece starts; `None` at the end.
    pub(crate) next: Option<i64>,
}

/// Counts what fits a selection. Walks over the log from where the selection begins, in pieces.
///
/// # Errors
/// [`AdminError`]: a selection that can fit nothing, or the database's refusal.
pub fn plan<S: ReplayStore>(conn: &mut S, selection: &Selection) -> Result<ReplayPlan, AdminError> {
    selection.check()?;
    let first_kept = conn.first_kept()?;
    let mut plan = ReplayPlan {
        total: 0,
        kinds: BTreeMap::new(),
        span: None,
        first_kept,
        missing_ids: Vec::new(),
        gap: first_kept.is_some_and(|first| gap(selection, first)),
    };
    let mut found = Vec::new();
    let mut from = Some(selection.start());
    while let Some(place) = from {
        let piece = conn.count_history(selection, place, PIECE)?;
        for (kind, count, first, last) in piece.kinds {
            let count = count.max(0).unsigned_abs();
            plan.total += count;
            *plan.kinds.entry(kind).or_default() += count;
            let (low, high) = plan.span.unwrap_or((first, last));
            plan.span = Some((low.min(first), high.max(last)));
        }
        found.extend(piece.ids);
        from = piece.next;
    }
    if let Some(ids) = &selection.ids {
        found.sort_unstable();
        plan.missing_ids =
            ids.iter().filter(|id| found.binary_search(id).is_err()).copied().collect();
    }
    Ok(plan)
}

/// Whether something older than what is kept was asked for. Numbers have holes, so a log that begins at
/// 2 may miss nothing; better asked once too often.
fn gap(selection: &Selection, first: Edge) -> bool {
    let from = selection.from_seq.is_some_and(|from| from.max(1) < first.seq);
    let since = selection.since.is_some_and(|since| since < first.created_at) && first.seq > 1;
    from || since
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_gap_is_where_the_log_begins_after_the_selection() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let first = Edge { seq: 5, created_at: at(50) };
        let from = |from| Selection { from_seq: Some(from), ..Selection::default() };
        let since = |since| Selection { since: Some(at(since)), ..Selection::default() };
        for (selection, first, expected) in [
            (from(4), first, true),
            (from(5), first, false),
            (from(0), Edge { seq: 1, ..first }, false),
            (since(49), first, true),
            (since(50), first, false),
            (since(49), Edge { seq: 1, ..first }, false),
            (Selection::default(), first, false),
        ] {
            assert_eq!(gap(&selection, first), expected, "{selection:?}");
        }
    }
}
