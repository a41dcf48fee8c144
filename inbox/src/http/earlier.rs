use std::time::Instant;

use axum::response::{IntoResponse, Response};
use db::{CallError, Class, classify};

use super::backend::HttpConnection;
use super::front::{Shared, before_repeating, remedy};
use super::identity::Identity;
use super::problem::Problem;
use super::reply::Reply;
use super::transaction::{Done, Undone};
use super::{Idempotent, RequestEnding};

impl<T, C: HttpConnection> Idempotent<T, C> {
    /// What an earlier request has left under the key: its reply, or that the key was used for something else. `None`
    /// where the handler may go on; another one may be at work, which [`run`](Self::run) finds out, and before it the
    /// ledger of effects.
    ///
    /// For handlers that perform [effects](Self::operation) before [`run`](Self::run), which looks as well, and only
    /// then. Without it a repeat asks the ledger of effects first, and one with another body finds a conflict there.
    pub async fn earlier(&self) -> Option<Response> {
        let (shared, identity) = (&self.shared, self.identity.as_ref()?);
        let (since, mut repeats) = (Instant::now(), 0);
        let (ending, reply) = loop {
            let (on, of) = (shared.clone(), identity.clone());
            let call =
                shared.db.call_within(shared.policy.deadline, move |conn| on.earlier(conn, &of));
            let error = match call.await {
                Ok(done) => break done.and_then(|done| shared.answer(done))?,
                Err(error) => error,
            };
            if repeats >= shared.policy.transaction_retries || !passes(&error) {
                break shared.unasked(identity, error);
            }
            repeats += 1;
            shared.telemetry.transactions_repeated.increment(1);
            before_repeating(repeats).await;
        };
        self.course.end(ending);
        shared.telemetry.seconds.record(since.elapsed());
        Some(answered(ending, reply))
    }
}

/// Whether another try may help at once: of a pool whose server was restarted each connection fails once.
fn passes(error: &CallError<Undone>) -> bool {
    let class = match error {
        CallError::Work(undone) => undone.class(),
        CallError::Begin(error) | CallError::Commit(error) => Some(classify(error)),
        _ => None,
    };
    matches!(class, Some(Class::Contention | Class::Unavailable))
}

pub(super) fn answered(ending: RequestEnding, reply: Reply) -> Response {
    match ending {
        RequestEnding::Replayed => reply.replayed(),
        _ => reply.into_response(),
    }
}

impl<C: HttpConnection> Shared<C> {
    /// The answer that comes of a transaction; `None` while another request is at work.
    pub(super) fn answer(&self, done: Done) -> Option<(RequestEnding, Reply)> {
        Some(match done {
            Done::First(reply) => (RequestEnding::First, reply),
            Done::Unkeyed(reply) => (RequestEnding::Unkeyed, reply),
            Done::Replay(reply) => (RequestEnding::Replayed, reply),
            Done::NotKept => (RequestEnding::NotKept, self.problem(Problem::NotKept)),
            Done::Mismatch => (RequestEnding::Mismatch, self.problem(Problem::Mismatch)),
            Done::Held => return None,
        })
    }

    /// The answer where the key could not be looked at, and nothing was done yet.
    fn unasked(&self, identity: &Identity, error: CallError<Undone>) -> (RequestEnding, Reply) {
        let (policy, key) = (&self.policy.name, identity.short());
        let undone = match error {
            CallError::Work(undone) => undone,
            CallError::Begin(error) | CallError::Commit(error) => error.into(),
            other => {
                tracing::warn!(policy, key, reason = %other, "no look at a key");
                return (RequestEnding::Unavailable, self.problem(Problem::Unavailable));
            }
        };
        if matches!(undone, Undone::Unreadable(_)) {
            tracing::error!(policy, key, reason = %undone, "no reply to give");
            return (RequestEnding::Unreadable, self.problem(Problem::NotKept));
        }
        self.unusable(undone.class().unwrap_or(Class::Other), &undone);
        (RequestEnding::Unavailable, self.problem(Problem::Unavailable))
    }

    pub(super) fn unusable(&self, class: Class, undone: &Undone) {
        let policy = &self.policy.name;
        match remedy(class) {
            Some(remedy) => {
                tracing::error!(policy, reason = %undone, remedy, "no request can be handled");
            }
            None => tracing::warn!(policy, reason = %undone, "nothing was done"),
        }
    }
}
