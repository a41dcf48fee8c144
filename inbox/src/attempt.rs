use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use db::{CallError, Class, classify};
use diesel::result::Error;
use futures_util::FutureExt;
use tokio::time::{sleep, timeout};

use crate::apply::Abort;
use crate::backend::InboxBackend;
use crate::backoff::Backoff;
use crate::builder::InboxConnection;
use crate::effect::{Course, course_in};
use crate::ending::Reason;
use crate::engine::{Engine, panic_text};
use crate::error::class_in;
use crate::failure::chain;
use crate::parking::{Fault, FaultKind};
use crate::stale::Stale;
use crate::unit::{Ready, Task};
use crate::{Consumer, Context, DuplicateKind, Failure, OperationVerdict};

/// Between repetitions of a transaction; long enough for the winner to commit.
const CONTENTION: Backoff =
    Backoff { first: Duration::from_millis(5), longest: Duration::from_millis(500) };

/// How one attempt went.
pub(crate) enum Step {
    /// The transaction committed.
    Committed(Verdict),
    /// It did not, and the message is to blame, or its handler.
    Fault(Fault),
    /// A parked message that somebody else has answered meanwhile.
    Overtaken,
    /// No fault of the message: try again later, without spending an attempt. After a lost COMMIT its
    /// outcome is unknown, and the row decides then.
    Wait(String),
}

/// What was committed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    Applied,
    Stale,
    Duplicate(DuplicateKind),
    Parked { id: i64, reason: Reason },
}

impl Verdict {
    pub(crate) const fn of(kept: OperationVerdict) -> Self {
        match kept {
            OperationVerdict::Applied => Self::Applied,
            OperationVerdict::Stale => Self::Stale,
        }
    }
}

/// What to do about an [`Abort`].
enum Remedy {
    /// Run the transaction again, at once.
    Repeat(String),
    Step(Step),
}

impl Remedy {
    fn wait(reason: impl Into<String>) -> Self {
        Self::Step(Step::Wait(reason.into()))
    }

    fn fault(kind: FaultKind, detail: impl Into<String>) -> Self {
        Self::Step(Step::Fault(Fault::new(kind, detail)))
    }
}

impl<C: InboxConnection> Engine<C> {
    /// One run of the handler: `prepare` where it has one, then the transaction, repeated whole where
    /// it lost against another one.
    pub(crate) async fn attempt(self: &Arc<Self>, ready: &Ready<C>, attempt: u32) -> Step {
        let mut prepared = false;
        let mut repeats = 0;
        loop {
            if !prepared {
                match self.prepare(ready, attempt).await {
                    Ok(done) => prepared = done,
                    Err(step) => return step,
                }
            }
            let reason = match self.transact(ready, attempt).await {
                Ok(verdict) => return Step::Committed(verdict),
                Err(Remedy::Step(step)) => return step,
                Err(Remedy::Repeat(reason)) => reason,
            };
            if repeats >= self.settings.transaction_retries {
                return Step::Fault(Fault::new(FaultKind::Retry, reason));
            }
            repeats += 1;
            self.telemetry.transactions_repeated.increment(1);
            sleep(CONTENTION.pause(repeats)).await;
        }
    }

    /// Whether `apply` can run; false where the operation took effect before and it need not.
    async fn prepare(self: &Arc<Self>, ready: &Ready<C>, attempt: u32) -> Result<bool, Step> {
        let stale = Stale::default();
        let context = context(self, ready, attempt, &stale);
        let Some(preparing) = ready.job.work.prepare(&context) else { return Ok(true) };
        // A look before the leap: most duplicates need not talk to the world again, nor what has to wait behind
        // a parked message of its key. The claim decides.
        let limit = self.settings.handler_deadline;
        let (engine, asked) = (self.clone(), ready.clone());
        let known = self.db.call_within(limit, move |conn| {
            let consumer = Consumer(&engine.consumer);
            let known = C::Backend::operation(conn, consumer, &asked.job.operation)?;
            Ok(known.is_some() || engine.head(conn, &asked)?.is_some())
        });
        match known.await {
            Ok(true) => return Ok(false),
            Ok(false) => {}
            Err::<_, CallError<Error>>(error) => return Err(Step::Wait(error.to_string())),
        }
        match timeout(limit, AssertUnwindSafe(preparing).catch_unwind()).await {
            Ok(Ok(Ok(()))) => Ok(true),
            Ok(Ok(Err(failure))) => Err(match of_failure(failure) {
                // Nothing to repeat: no transaction has begun.
                Remedy::Repeat(reason) => Step::Fault(Fault::new(FaultKind::Retry, reason)),
                Remedy::Step(step) => step,
            }),
            Ok(Err(panic)) => {
                self.telemetry.panics.increment(1);
                let detail = format!("panicked: {}", panic_text(&*panic));
                Err(Step::Fault(Fault::new(FaultKind::Retry, detail)))
            }
            Err(_) => Err(self.hung(&ready.task, "preparing", limit)),
        }
    }

    fn hung(&self, task: &Task<C>, what: &str, limit: Duration) -> Step {
        self.telemetry.hung.increment(1);
        tracing::error!(
            consumer = self.consumer,
            message_id = task.message_id(),
            ?limit,
            what,
            "a handler gave no answer in time"
        );
        Step::Fault(Fault::new(FaultKind::Hung, format!("{what} took longer than {limit:?}")))
    }

    async fn transact(self: &Arc<Self>, ready: &Ready<C>, attempt: u32) -> Result<Verdict, Remedy> {
        let (engine, work) = (self.clone(), ready.clone());
        let done = self.db.call_within(self.settings.handler_deadline, move |conn| {
            let mut begun = false;
            conn.write(|tx| {
                begun = true;
                engine.claim_and_apply(tx, &work, attempt)
            })
            .map_err(|abort| (abort, begun))
        });
        match done.await {
            Ok(verdict) => Ok(verdict),
            Err(error) => Err(self.remedy(&ready.task, error)),
        }
    }

    fn remedy(&self, task: &Task<C>, error: CallError<(Abort, bool)>) -> Remedy {
        match error {
            CallError::Work((abort, begun)) => of_abort(abort, begun),
            CallError::Panicked { message } => {
                self.telemetry.panics.increment(1);
                Remedy::fault(FaultKind::Retry, format!("panicked: {message}"))
            }
            // Its transaction may still commit: the retry finds out.
            CallError::TimedOut { after } => Remedy::Step(self.hung(task, "applying", after)),
            CallError::PoolExhausted { after, reason } => {
                Remedy::wait(format!("no database connection within {after:?}: {reason}"))
            }
            CallError::Cancelled => Remedy::wait("the runtime is shutting down"),
            // Behind a transaction pooler the transaction is the call's, and ours was a savepoint of it.
            CallError::Begin(error) => of_abort(Abort::Database(error), false),
            CallError::Commit(error) => of_abort(Abort::Database(error), true),
        }
    }
}

pub(crate) fn context<'a, C: InboxConnection>(
    engine: &'a Engine<C>,
    ready: &'a Ready<C>,
    attempt: u32,
    stale: &'a Stale,
) -> Context<'a> {
    let (incoming, job) = (&ready.task.incoming, &ready.job);
    Context {
        consumer: Consumer(&engine.consumer),
        incoming,
        operation: &job.operation,
        fingerprint: &job.fingerprint,
        attempt,
        stale,
        generation: job.generation,
        effects: &engine.effects,
    }
}

fn of_abort(abort: Abort, begun: bool) -> Remedy {
    match abort {
        Abort::Handler(failure) => of_failure(failure),
        Abort::Held => Remedy::wait("another transaction is applying the operation"),
        Abort::Overtaken => Remedy::Step(Step::Overtaken),
        Abort::Unprepared => Remedy::Repeat("the operation's row was deleted meanwhile".to_owned()),
        Abort::Claim(error) => match class_in(&error) {
            // Whatever keeps our own table from being written is no fault of the message.
            Some(
                Class::Contention
                | Class::Unavailable
                | Class::Schema
                | Class::Denied
                | Class::Pooler,
            ) => Remedy::wait(chain(&error)),
            Some(Class::Other) | None => Remedy::fault(FaultKind::Retry, chain(&error)),
        },
        Abort::Database(error) if !begun => Remedy::wait(chain(&error)),
        Abort::Database(error) => of_database(&error),
    }
}

fn of_database(error: &Error) -> Remedy {
    match classify(error) {
        Class::Contention => Remedy::Repeat(chain(error)),
        Class::Unavailable | Class::Pooler => Remedy::wait(chain(error)),
        // COMMIT itself refused (a deferred constraint): the handler's doing.
        Class::Schema | Class::Denied | Class::Other => {
            Remedy::fault(FaultKind::Retry, chain(error))
        }
    }
}

fn of_failure(failure: Failure) -> Remedy {
    let (source, kind) = match failure {
        Failure::Early { reason } => return Remedy::fault(FaultKind::Early, reason),
        Failure::Review { reason } => return Remedy::fault(FaultKind::Review, reason),
        Failure::Reject { reason } => return Remedy::fault(FaultKind::Reject, reason),
        Failure::Retry(source) => match course_in(&*source) {
            None | Some(Course::Retry) => (source, FaultKind::Retry),
            Some(course) => return of_effect(course, &chain(&*source)),
        },
        Failure::RetryAfter { source, after } => (source, FaultKind::RetryAfter(after)),
    };
    match class_in(&*source) {
        Some(Class::Contention) => Remedy::Repeat(chain(&*source)),
        Some(Class::Unavailable | Class::Pooler) => Remedy::wait(chain(&*source)),
        Some(Class::Schema | Class::Denied | Class::Other) | None => {
            Remedy::fault(kind, chain(&*source))
        }
    }
}

/// What an effect without a result asks for.
fn of_effect(course: Course, detail: &str) -> Remedy {
    let kind = match course {
        Course::Retry => FaultKind::Retry,
        Course::Wait(again_in) => FaultKind::Waiting(Some(again_in)),
        Course::WaitForDecision => FaultKind::Waiting(None),
        Course::Review => FaultKind::Review,
        Course::Reject => FaultKind::Reject,
        Course::Unavailable => return Remedy::wait(detail),
    };
    Remedy::fault(kind, detail)
}
