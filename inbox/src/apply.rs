use std::fmt;
use std::time::SystemTime;

use diesel::result::Error;
use serde_json::value::RawValue;

use crate::attempt::{Verdict, context};
use crate::backend::InboxBackend;
use crate::builder::InboxConnection;
use crate::ending::Reason;
use crate::engine::Engine;
use crate::outcome::Answer;
use crate::park::NewParked;
use crate::parking::{Next, Parking};
use crate::replay::Replayed;
use crate::route::Job;
use crate::stale::Stale;
use crate::unit::{Ready, Task};
use crate::{Consumer, Failure, Once, OnceError};

/// Why a transaction was not committed, or not known to be.
pub(crate) enum Abort {
    /// The handler's word.
    Handler(Failure),
    /// The claim could not be made.
    Claim(OnceError),
    /// Another transaction is applying the operation.
    Held,
    /// A parked message that somebody else has taken or decided about.
    Overtaken,
    /// The handler has to prepare first.
    Unprepared,
    /// BEGIN, COMMIT or parking failed.
    Database(Error),
}

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handler(failure) => failure.fmt(f),
            Self::Claim(error) => error.fmt(f),
            Self::Database(error) => error.fmt(f),
            Self::Held => f.write_str("another transaction is applying the operation"),
            Self::Overtaken => f.write_str("somebody else has answered the message"),
            Self::Unprepared => f.write_str("the handler has not prepared"),
        }
    }
}

impl From<OnceError> for Abort {
    fn from(error: OnceError) -> Self {
        Self::Claim(error)
    }
}

impl From<Error> for Abort {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl<C: InboxConnection> Engine<C> {
    /// Everything that one message changes, in one transaction.
    pub(crate) fn claim_and_apply(
        &self,
        tx: &mut C,
        ready: &Ready<C>,
        attempt: u32,
    ) -> Result<Verdict, Abort> {
        if let Some(verdict) = self.behind(tx, ready)? {
            return Ok(verdict);
        }
        let stale = Stale::default();
        let context = context(self, ready, attempt, &stale);
        let answer =
            self.once(ready).answer(tx, |tx| match ready.job.work.apply(tx, &context) {
                Some(applied) => Ok((applied.map_err(Abort::Handler)?, stale.verdict())),
                None => Err(Abort::Unprepared),
            })?;
        // As raw JSON: nobody here reads the result.
        let answer: Answer<Box<RawValue>> = answer;
        if let Answer::Applied(result) = answer {
            if self.wants_reply(&ready.task) {
                ready.task.keep_result(Some(result));
            }
            self.forget(tx, ready)?;
            return Ok(Verdict::of(stale.verdict()));
        }
        self.answered(tx, ready, answer)
    }

    /// The message's operation, as the claim and the counting of repeats want it.
    pub(crate) fn once<'a>(&'a self, ready: &'a Ready<C>) -> Once<'a> {
        let (incoming, job) = (&ready.task.incoming, &ready.job);
        let once = Once::new(Consumer(&self.consumer), &job.operation, &job.fingerprint)
            .redelivered(incoming.redelivered)
            .replay(Replayed::of(incoming).is_some());
        match &incoming.message_id {
            Some(id) => once.message_id(id),
            None => once,
        }
    }

    /// What became of a message whose handler did not run.
    pub(crate) fn answered(
        &self,
        tx: &mut C,
        ready: &Ready<C>,
        answer: Answer<Box<RawValue>>,
    ) -> Result<Verdict, Abort> {
        let verdict = match answer {
            Answer::Applied(_) => Verdict::Applied,
            Answer::Duplicate { kind, result, .. } => {
                if self.wants_reply(&ready.task) {
                    ready.task.keep_result(result);
                }
                Verdict::Duplicate(kind)
            }
            Answer::Conflict { first_seen, first_message_id } => {
                let detail = conflict(&ready.job, first_seen, first_message_id.as_deref());
                let parking = Parking::for_review(Reason::Conflict, detail, ready.task.attempts());
                return self.park_in(tx, ready, &parking);
            }
            Answer::InProgress => return Err(Abort::Held),
        };
        self.forget(tx, ready)?;
        Ok(verdict)
    }

    /// An ordered consumer's delivery that has to wait for an earlier one of its key.
    fn behind(&self, tx: &mut C, ready: &Ready<C>) -> Result<Option<Verdict>, Abort> {
        let Some(head) = self.head(tx, ready)? else { return Ok(None) };
        let detail = format!("waits behind parked message {head}");
        let parking = Parking { reason: Reason::Behind, detail, next: Next::Behind, attempts: 0 };
        self.park_in(tx, ready, &parking).map(Some)
    }

    /// What an ordered consumer's delivery has to wait for.
    pub(crate) fn head(&self, conn: &mut C, ready: &Ready<C>) -> Result<Option<i64>, Error> {
        let (true, None, Some(key)) = (self.settings.ordered, ready.task.lease, ready.key()) else {
            return Ok(None);
        };
        let skip = self.settings.skip_reviewed;
        C::Backend::head_of_key(conn, Consumer(&self.consumer), key, skip)
    }

    /// Takes a message that has come to its end out of the inbox's own books.
    fn forget(&self, tx: &mut C, ready: &Ready<C>) -> Result<(), Abort> {
        let consumer = Consumer(&self.consumer);
        if let Some(digest) = &ready.task.digest {
            C::Backend::finish(tx, consumer, digest.as_bytes())?;
        }
        let Some(lease) = &ready.task.lease else { return Ok(()) };
        if !C::Backend::resolve(tx, lease)? {
            return Err(Abort::Overtaken);
        }
        self.promote_next(tx, ready.key())?;
        Ok(())
    }

    fn promote_next(&self, tx: &mut C, key: Option<&str>) -> Result<(), Error> {
        if let (true, Some(key)) = (self.settings.ordered, key) {
            C::Backend::promote(tx, Consumer(&self.consumer), key, self.settings.skip_reviewed)?;
        }
        Ok(())
    }

    /// Parks a message in an open transaction.
    pub(crate) fn park_in(
        &self,
        tx: &mut C,
        ready: &Ready<C>,
        parking: &Parking,
    ) -> Result<Verdict, Abort> {
        self.park_task(tx, &ready.task, Some(ready), parking)?.ok_or(Abort::Overtaken)
    }

    /// The same for any; `None` for a parked one that somebody else has taken or decided about.
    pub(crate) fn park_task(
        &self,
        tx: &mut C,
        task: &Task<C>,
        ready: Option<&Ready<C>>,
        parking: &Parking,
    ) -> Result<Option<Verdict>, Error> {
        let consumer = Consumer(&self.consumer);
        let key = ready.map_or_else(|| task.key(), Ready::key);
        if let Some(digest) = &task.digest {
            C::Backend::finish(tx, consumer, digest.as_bytes())?;
        }
        let id = match &task.lease {
            Some(lease) => {
                if !C::Backend::put_back(tx, lease, parking)? {
                    return Ok(None);
                }
                // What it is parked for now may be nothing that others wait for.
                self.promote_next(tx, key)?;
                lease.id
            }
            None => {
                let operation = ready.map(|ready| &ready.job.operation);
                let row = NewParked::new(consumer, &task.incoming, operation, key, parking);
                C::Backend::park(tx, &row)?
            }
        };
        Ok(Some(Verdict::Parked { id, reason: parking.reason }))
    }
}

fn conflict<C>(job: &Job<C>, first_seen: SystemTime, first: Option<&str>) -> String {
    let by = first.map_or("a message without id".to_owned(), |id| format!("message {id}"));
    let at = humantime::format_rfc3339_millis(first_seen);
    format!("operation {} took effect at {at} by {by}, with other content", job.operation)
}
