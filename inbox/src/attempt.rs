use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use db::{CallError, Class, classify};
use diesel::result::Error;
use futures_util::FutureExt;
use serde_json::value::RawValue;
use tokio::time::sleep;

use crate::backend::InboxBackend;
use crate::backoff::Backoff;
use crate::builder::InboxConnection;
use crate::ending::Reason;
use crate::engine::{Engine, panic_text};
use crate::error::class_in;
use crate::failure::chain;
use crate::incoming::Incoming;
use crate::park::NewParked;
use crate::route::Job;
use crate::stale::Stale;
use crate::{Consumer, Context, Failure, Once, OnceError, Outcome};

/// Between repetitions of a transaction; long enough for the winner to commit.
const CONTENTION: Backoff =
    Backoff { first: Duration::from_millis(5), longest: Duration::from_millis(500) };

/// How one attempt went.
pub(crate) enum Step {
    /// The transaction committed.
    Committed(Verdict),
    /// The handler said never.
    Reject(String),
    /// The handler failed, or panicked.
    Fail(String),
    /// No fault of the message: try again later, without spending an attempt. After a lost COMMIT its
    /// outcome is unknown, and the row decides then.
    Wait(String),
}

/// What was committed.
pub(crate) enum Verdict {
    Applied,
    Duplicate,
    Conflict { parked: i64 },
}

/// Why a transaction was not committed, or not known to be.
enum Abort {
    /// The handler's word.
    Handler(Failure),
    /// The claim could not be made.
    Claim(OnceError),
    /// Another transaction is applying the operation.
    Held,
    /// The handler has to prepare first.
    Unprepared,
    /// BEGIN, COMMIT or parking failed.
    Database(Error),
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

/// What to do about an [`Abort`].
enum Remedy {
    /// Run the transaction again, at once.
    Repeat(String),
    Step(Step),
}

impl<C: InboxConnection> Engine<C> {
    /// One run of the handler: `prepare` where it has one, then the transaction, repeated whole where
    /// it lost against another one.
    pub(crate) async fn attempt(
        self: &Arc<Self>,
        incoming: &Arc<Incoming>,
        job: &Arc<Job<C>>,
        attempt: u32,
    ) -> Step {
        let mut prepared = false;
        let mut repeats = 0;
        loop {
            if !prepared {
                match self.prepare(incoming, job, attempt).await {
                    Ok(done) => prepared = done,
                    Err(step) => return step,
                }
            }
            let reason = match self.transact(incoming, job, attempt).await {
                Ok(verdict) => return Step::Committed(verdict),
                Err(Remedy::Step(step)) => return step,
                Err(Remedy::Repeat(reason)) => reason,
            };
            if repeats >= self.settings.transaction_retries {
                return Step::Fail(reason);
            }
            repeats += 1;
            self.telemetry.transactions_repeated.increment(1);
            sleep(CONTENTION.pause(repeats)).await;
        }
    }

    /// Whether `apply` can run; false where the operation took effect before and it need not.
    async fn prepare(
        &self,
        incoming: &Incoming,
        job: &Arc<Job<C>>,
        attempt: u32,
    ) -> Result<bool, Step> {
        let stale = Stale::default();
        let context = context(incoming, job, attempt, &stale);
        let Some(preparing) = job.work.prepare(&context) else { return Ok(true) };
        // A look before the leap: most duplicates need not talk to the world again. The claim decides.
        let (consumer, asked) = (self.consumer.clone(), job.clone());
        let known = self
            .db
            .call(move |conn| C::Backend::operation(conn, Consumer(&consumer), &asked.operation))
            .await;
        match known {
            Ok(Some(_)) => return Ok(false),
            Ok(None) => {}
            Err(error) => return Err(Step::Wait(error.to_string())),
        }
        match AssertUnwindSafe(preparing).catch_unwind().await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(failure)) => Err(match of_failure(failure) {
                // Nothing to repeat: no transaction has begun.
                Remedy::Repeat(reason) => Step::Fail(reason),
                Remedy::Step(step) => step,
            }),
            Err(panic) => {
                self.telemetry.panics.increment(1);
                Err(Step::Fail(format!("panicked: {}", panic_text(&*panic))))
            }
        }
    }

    async fn transact(
        self: &Arc<Self>,
        incoming: &Arc<Incoming>,
        job: &Arc<Job<C>>,
        attempt: u32,
    ) -> Result<Verdict, Remedy> {
        let (engine, message, work) = (self.clone(), incoming.clone(), job.clone());
        let done = self.db.call(move |conn| {
            let mut begun = false;
            conn.write(|tx| {
                begun = true;
                engine.claim_and_apply(tx, &message, &work, attempt)
            })
            .map_err(|abort| (abort, begun))
        });
        let (abort, begun) = match done.await {
            Ok(verdict) => return Ok(verdict),
            Err(CallError::Work(aborted)) => aborted,
            Err(CallError::Panicked { message }) => {
                self.telemetry.panics.increment(1);
                return Err(Remedy::Step(Step::Fail(format!("panicked: {message}"))));
            }
            Err(CallError::TimedOut { after }) => {
                let reason = format!("no answer from the database within {after:?}");
                return Err(Remedy::Step(Step::Wait(reason)));
            }
            Err(CallError::PoolExhausted { after, reason }) => {
                let reason = format!("no database connection within {after:?}: {reason}");
                return Err(Remedy::Step(Step::Wait(reason)));
            }
            Err(CallError::Cancelled) => {
                return Err(Remedy::Step(Step::Wait("the runtime is shutting down".to_owned())));
            }
            // Behind a transaction pooler the transaction is the call's, and ours was a savepoint of it.
            Err(CallError::Begin(error)) => (Abort::Database(error), false),
            Err(CallError::Commit(error)) => (Abort::Database(error), true),
        };
        Err(of_abort(abort, begun))
    }

    fn claim_and_apply(
        &self,
        tx: &mut C,
        incoming: &Incoming,
        job: &Job<C>,
        attempt: u32,
    ) -> Result<Verdict, Abort> {
        let stale = Stale::default();
        let context = context(incoming, job, attempt, &stale);
        let consumer = Consumer(&self.consumer);
        let mut once = Once::new(consumer, &job.operation, &job.fingerprint);
        if let Some(id) = context.message_id() {
            once = once.message_id(id);
        }
        let outcome = once.run(tx, |tx| match job.work.apply(tx, &context) {
            Some(applied) => applied.map_err(Abort::Handler),
            None => Err(Abort::Unprepared),
        })?;
        // As raw JSON: nobody here reads the result.
        let outcome: Outcome<Box<RawValue>> = outcome;
        match outcome {
            Outcome::Applied(_) => Ok(Verdict::Applied),
            Outcome::Duplicate(_) => Ok(Verdict::Duplicate),
            Outcome::Conflict { first_seen, first_message_id } => {
                let detail = conflict(job, first_seen, first_message_id.as_deref());
                let row = NewParked::new(
                    consumer,
                    incoming,
                    Some(&job.operation),
                    Reason::Conflict,
                    &detail,
                    0,
                );
                Ok(Verdict::Conflict { parked: C::Backend::park(tx, &row)? })
            }
            Outcome::InProgress => Err(Abort::Held),
        }
    }
}

fn context<'a, C>(
    incoming: &'a Incoming,
    job: &'a Job<C>,
    attempt: u32,
    stale: &'a Stale,
) -> Context<'a> {
    Context { incoming, operation: &job.operation, fingerprint: &job.fingerprint, attempt, stale }
}

fn conflict<C>(job: &Job<C>, first_seen: SystemTime, first: Option<&str>) -> String {
    let by = first.map_or("a message without id".to_owned(), |id| format!("message {id}"));
    let at = humantime::format_rfc3339_millis(first_seen);
    format!("operation {} took effect at {at} by {by}, with other content", job.operation)
}

fn of_abort(abort: Abort, begun: bool) -> Remedy {
    match abort {
        Abort::Handler(failure) => of_failure(failure),
        Abort::Held => {
            Remedy::Step(Step::Wait("another transaction is applying the operation".to_owned()))
        }
        Abort::Unprepared => Remedy::Repeat("the operation's row was deleted meanwhile".to_owned()),
        Abort::Claim(error) => match class_in(&error) {
            // Whatever keeps our own table from being written is no fault of the message.
            Some(
                Class::Contention
                | Class::Unavailable
                | Class::Schema
                | Class::Denied
                | Class::Pooler,
            ) => Remedy::Step(Step::Wait(chain(&error))),
            Some(Class::Other) | None => Remedy::Step(Step::Fail(chain(&error))),
        },
        Abort::Database(error) if !begun => Remedy::Step(Step::Wait(chain(&error))),
        Abort::Database(error) => match classify(&error) {
            Class::Contention => Remedy::Repeat(chain(&error)),
            Class::Unavailable | Class::Pooler => Remedy::Step(Step::Wait(chain(&error))),
            // COMMIT itself refused (a deferred constraint): the handler's doing.
            Class::Schema | Class::Denied | Class::Other => Remedy::Step(Step::Fail(chain(&error))),
        },
    }
}

fn of_failure(failure: Failure) -> Remedy {
    match failure {
        Failure::Reject { reason } => Remedy::Step(Step::Reject(reason)),
        Failure::Retry(source) => match class_in(&*source) {
            Some(Class::Contention) => Remedy::Repeat(chain(&*source)),
            Some(Class::Unavailable | Class::Pooler) => Remedy::Step(Step::Wait(chain(&*source))),
            Some(Class::Schema | Class::Denied | Class::Other) | None => {
                Remedy::Step(Step::Fail(chain(&*source)))
            }
        },
    }
}
