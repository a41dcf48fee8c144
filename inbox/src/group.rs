use std::collections::HashSet;
use std::sync::Arc;

use db::CallError;
use diesel::result::Error;
use serde_json::value::RawValue;

use crate::apply::Abort;
use crate::attempt::{Verdict, context};
use crate::backend::InboxBackend;
use crate::builder::InboxConnection;
use crate::engine::Engine;
use crate::once::{is_nothing, is_sound};
use crate::outcome::Answer;
use crate::park::clean;
use crate::stale::Stale;
use crate::store::Row;
use crate::store::batch::{BatchClaim, BatchResult};
use crate::unit::Ready;
use crate::{Consumer, OnceError};

/// What one transaction did with each of its messages; `None` for one that has to wait behind a parked
/// one of its key, which it was not asked about.
type Verdicts = Vec<Option<Verdict>>;

impl<C: InboxConnection> Engine<C> {
    /// Applies several messages in one transaction, without a savepoint for each: that would cost two round
    /// trips a message. The first that fails undoes all, and the caller applies them one by one.
    pub(crate) async fn transact_group(
        self: &Arc<Self>,
        group: Vec<Ready<C>>,
    ) -> Result<Verdicts, String> {
        let engine = self.clone();
        let done = self.db.call_within(self.settings.handler_deadline, move |conn| {
            conn.write(|tx| engine.apply_group(tx, &group))
        });
        done.await.map_err(|error| match error {
            CallError::Work(abort) => abort.to_string(),
            CallError::Panicked { message } => format!("panicked: {message}"),
            other => other.to_string(),
        })
    }

    fn apply_group(&self, tx: &mut C, group: &[Ready<C>]) -> Result<Verdicts, Abort> {
        let blocked = self.blocked(tx, group)?;
        let free = |ready: &Ready<C>| !ready.key().is_some_and(|key| blocked.contains(key));
        let ours = self.claim_all(tx, group.iter().filter(|ready| free(ready)))?;
        let mut results = Vec::with_capacity(ours.len());
        let mut verdicts = vec![None; group.len()];
        let mut repeats = Vec::new();
        for (at, ready) in group.iter().enumerate().filter(|(_, ready)| free(ready)) {
            if ours.contains(&key_of(ready)) {
                let (verdict, result) = self.apply_claimed(tx, ready)?;
                results.extend(result);
                verdicts[at] = Some(verdict);
            } else {
                repeats.push((key_of(ready), at));
            }
        }
        // In the order of their keys, as they are claimed: two batches must not wait for each other.
        repeats.sort();
        for (_, at) in repeats {
            verdicts[at] = Some(self.answer_repeat(tx, &group[at])?);
        }
        // As for a single one: without anything to keep it only finds out whether all is lost.
        if results.is_empty() && !is_sound(tx) {
            return Err(Abort::Database(Error::RollbackTransaction));
        }
        if !results.is_empty() {
            let json = serde_json::to_string(&results).map_err(OnceError::UnwritableResult)?;
            let kept = C::Backend::store_results(tx, Consumer(&self.consumer), &json)?;
            if kept != results.len() {
                return Err(OnceError::RowGone.into());
            }
        }
        Ok(verdicts)
    }

    fn blocked(&self, tx: &mut C, group: &[Ready<C>]) -> Result<HashSet<String>, Abort> {
        let keys: Vec<&str> = group.iter().filter_map(Ready::key).collect();
        if !self.settings.ordered || keys.is_empty() {
            return Ok(HashSet::new());
        }
        let json = serde_json::to_string(&keys).map_err(OnceError::UnwritableResult)?;
        let skip = self.settings.skip_reviewed;
        let blocked = C::Backend::blocked_keys(tx, Consumer(&self.consumer), &json, skip)?;
        Ok(blocked.into_iter().collect())
    }

    fn claim_all<'a>(
        &self,
        tx: &mut C,
        group: impl Iterator<Item = &'a Ready<C>>,
    ) -> Result<HashSet<(String, String)>, Abort> {
        let group: Vec<_> = group
            .map(|ready| (ready, ready.task.incoming.message_id.as_deref().map(clean)))
            .collect();
        if group.is_empty() {
            return Ok(HashSet::new());
        }
        let claims: Vec<_> = group
            .iter()
            .map(|(ready, message_id)| BatchClaim {
                scope: ready.job.operation.scope(),
                operation: ready.job.operation.id(),
                fingerprint: ready.job.fingerprint.to_string(),
                message_id: message_id.as_deref(),
            })
            .collect();
        let json = serde_json::to_string(&claims).map_err(OnceError::UnwritableResult)?;
        let ours = C::Backend::claim_all(tx, Consumer(&self.consumer), &json);
        Ok(ours.map_err(OnceError::from)?.into_iter().collect())
    }

    fn apply_claimed<'a>(
        &self,
        tx: &mut C,
        ready: &'a Ready<C>,
    ) -> Result<(Verdict, Option<BatchResult<'a>>), Abort> {
        let stale = Stale::default();
        let context = context(self, ready, 1, &stale);
        let applied = ready.job.work.apply(tx, &context).ok_or(Abort::Unprepared)?;
        let result = applied.map_err(Abort::Handler)?;
        let verdict = stale.verdict();
        let kept = (!is_nothing(result.get(), verdict)).then(|| BatchResult {
            scope: ready.job.operation.scope(),
            operation: ready.job.operation.id(),
            result: String::from(Box::<str>::from(result)),
            verdict: verdict.stored(),
        });
        Ok((Verdict::of(verdict), kept))
    }

    fn answer_repeat(&self, tx: &mut C, ready: &Ready<C>) -> Result<Verdict, Abort> {
        let row = self.once(ready).row;
        let message_id = row.message_id.map(clean);
        let row = Row { message_id: message_id.as_deref(), ..row };
        let first = C::Backend::count_repeat(tx, &row).map_err(OnceError::from)?;
        // Deleted between the two statements: alone it is claimed again.
        let first = first.ok_or(OnceError::RowGone)?;
        self.answered(tx, ready, Answer::<Box<RawValue>>::to_repeat(first)?)
    }
}

fn key_of<C>(ready: &Ready<C>) -> (String, String) {
    (ready.job.operation.scope().to_owned(), ready.job.operation.id().to_owned())
}
