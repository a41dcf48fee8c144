use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRef, FromRequest, Request};
use axum::response::Response;
use db::{CallError, Class};
use message::OperationKey;
use serde::de::DeserializeOwned;

use super::backend::HttpConnection;
use super::course::Course;
use super::earlier::answered;
use super::front::{Idempotency, Shared, Waiting, before_repeating};
use super::identity::{Identity, is_json};
use super::policy::Keep;
use super::problem::Problem;
use super::reply::Reply;
use super::transaction::Undone;
use super::{Failed, RequestEnding};

/// A request that takes effect once per `Idempotency-Key`: an extractor with the body, read as JSON, in
/// it. An empty body is read as `null`.
///
/// What [`run`](Self::run) does in its transaction, what it enqueues there and the reply become
/// permanent in one commit, or not at all. See the [module](super) for an example.
///
/// It needs an [`Idempotency`] in the request's extensions, or in the state (`FromRef`), and a
/// [`Caller`](super::Caller) in the extensions. Refusals are problems (RFC 9457) that point to the
/// published policy.
#[must_use = "nothing is done before `run`"]
pub struct Idempotent<T, C: HttpConnection> {
    pub(super) shared: Arc<Shared<C>>,
    pub(super) identity: Option<Arc<Identity>>,
    pub(super) course: Course<C>,
    body: Arc<T>,
}

impl<S, T, C> FromRequest<S> for Idempotent<T, C>
where
    S: Send + Sync,
    T: DeserializeOwned + Send + Sync + 'static,
    C: HttpConnection,
    Idempotency<C>: FromRef<S>,
{
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let front = request.extensions().get::<Idempotency<C>>().cloned();
        let shared = front.unwrap_or_else(|| Idempotency::from_ref(state)).shared;
        let course = Course::new(shared.clone());
        let admitted = shared.admit(request).await;
        // What is refused from here on is counted where it is.
        course.close();
        let (parts, admitted) = admitted.map_err(|response| *response)?;
        let empty = admitted.body.is_empty();
        if !empty && !is_json(&parts) {
            return Err(*shared.refused(Problem::UnsupportedMediaType));
        }
        let bytes = if empty { &b"null"[..] } else { &admitted.body };
        match serde_json::from_slice(bytes) {
            Ok(body) => {
                let identity = admitted.identity.map(Arc::new);
                course.hand_over();
                Ok(Self { shared, identity, course, body: Arc::new(body) })
            }
            Err(fault) => Err(*shared.unreadable(&fault)),
        }
    }
}

impl<T, C> Idempotent<T, C>
where
    T: Send + Sync + 'static,
    C: HttpConnection,
{
    /// The body. What is refused over it before [`run`](Self::run) leaves the key free.
    #[must_use]
    pub fn body(&self) -> &T {
        &self.body
    }

    /// What the request is stored under, made of caller, method, route and key: the operation for
    /// [`Effects`](crate::effect::Effects) that are performed before [`run`](Self::run), so that a repeat finds
    /// theirs. `None` where the request has no key and needs none.
    ///
    /// Whoever asks for it is taken to have reached the outside world: no answer of [`run`](Self::run) says any more
    /// that nothing was done or that everything is undone, and none of them is kept for a failure.
    #[must_use]
    pub fn operation(&self) -> Option<&OperationKey> {
        let identity = self.identity.as_ref()?;
        self.course.reach();
        Some(&identity.operation)
    }

    /// Runs `work` once for the key, in a transaction with everything that it says happened; else gives
    /// the reply of the first time.
    ///
    /// `work` can run several times for one request, over contention; only the run that commits leaves
    /// anything behind. It must do nothing outside `tx`, and runs on a thread that may block. A request
    /// whose client has gone is finished all the same, unless it was waiting.
    ///
    /// - `Ok` with a 2xx or 3xx: committed, kept. With a 4xx or 5xx: as the [`Policy`](super::Policy) says,
    ///   kept with its effects or undone.
    /// - `Err` and panics: everything is undone and the key is free.
    pub async fn run<W>(self, work: W) -> Response
    where
        W: Fn(&mut C, &T) -> Result<Reply, Failed> + Send + Sync + 'static,
    {
        let since = Instant::now();
        let (ending, reply) = self.settle(work).await;
        self.course.end(ending);
        self.shared.telemetry.seconds.record(since.elapsed());
        answered(ending, reply)
    }

    async fn settle<W>(&self, work: W) -> (RequestEnding, Reply)
    where
        W: Fn(&mut C, &T) -> Result<Reply, Failed> + Send + Sync + 'static,
    {
        let Self { shared, identity, course, body } = self;
        let reached = course.take_back();
        let work = Arc::new(work);
        let key = identity.as_deref().map(Identity::short);
        let problem = |ending, problem: Problem| (ending, shared.problem(problem.beyond(reached)));
        let (mut waiting, mut repeats, mut looked_again) = (Waiting::new(), 0, false);
        loop {
            let (on, of) = (shared.clone(), identity.clone());
            let (given, handler) = (body.clone(), work.clone());
            let call = shared.db.call_within(shared.policy.deadline, move |conn| {
                on.transact(conn, of.as_deref(), |tx| handler(tx, &given))
            });
            let undone = match call.await {
                Ok(done) => {
                    if let Some(answer) = shared.answer(done) {
                        return answer;
                    }
                    if waiting.next(shared).await {
                        continue;
                    }
                    return problem(RequestEnding::InProgress, Problem::InProgress);
                }
                Err(CallError::Work(undone)) => undone,
                Err(CallError::Begin(error)) => error.into(),
                Err(CallError::Commit(error)) => Undone::at_commit(error),
                Err(CallError::PoolExhausted { reason, .. }) => {
                    tracing::warn!(policy = shared.policy.name, reason, "no database connection");
                    return problem(RequestEnding::Unavailable, Problem::Unavailable);
                }
                Err(CallError::Cancelled) => {
                    return problem(RequestEnding::Unavailable, Problem::Unavailable);
                }
                Err(error @ CallError::TimedOut { .. }) => {
                    tracing::error!(policy = shared.policy.name, key, reason = %error, "outcome unknown");
                    return problem(RequestEnding::Unknown, Problem::Unknown);
                }
                Err(CallError::Panicked { message }) => {
                    tracing::error!(
                        policy = shared.policy.name,
                        key,
                        message,
                        "the handler panicked"
                    );
                    Undone::Panicked
                }
            };
            match undone.class() {
                // Nothing was committed, so a lost connection is as good a reason: of a pool whose server was
                // restarted each one fails once.
                Some(Class::Contention | Class::Unavailable)
                    if repeats < shared.policy.transaction_retries =>
                {
                    repeats += 1;
                    shared.telemetry.transactions_repeated.increment(1);
                    before_repeating(repeats).await;
                    continue;
                }
                Some(Class::Contention | Class::Unavailable) => {
                    tracing::warn!(policy = shared.policy.name, key, reason = %undone, "nothing was done");
                    return problem(RequestEnding::Unavailable, Problem::Unavailable);
                }
                // The statements on the key: the handler's own are its failure.
                Some(class @ (Class::Schema | Class::Denied | Class::Pooler))
                    if matches!(undone, Undone::Database(_)) =>
                {
                    shared.unusable(class, &undone);
                    return problem(RequestEnding::Unavailable, Problem::Unavailable);
                }
                Some(Class::Schema | Class::Denied | Class::Pooler | Class::Other) | None => {}
            }
            if !looked_again && undone.may_be_outrun() {
                looked_again = true;
                match outrun(shared, identity.as_ref()).await {
                    Some(true) => {
                        shared.telemetry.transactions_repeated.increment(1);
                        continue;
                    }
                    Some(false) => {}
                    // Nothing was done here, and perhaps by another one: whoever sends it again finds out.
                    None => return problem(RequestEnding::Unknown, Problem::Unknown),
                }
            }
            let policy = &shared.policy.name;
            return match undone {
                Undone::Refused(reply) => (RequestEnding::Refused, *reply),
                // Gone again already.
                Undone::Late if repeats < shared.policy.transaction_retries => {
                    repeats += 1;
                    shared.telemetry.transactions_repeated.increment(1);
                    continue;
                }
                Undone::Late => problem(RequestEnding::InProgress, Problem::InProgress),
                Undone::Unknown(_) => {
                    tracing::error!(policy, key, reason = %undone, "outcome unknown");
                    problem(RequestEnding::Unknown, Problem::Unknown)
                }
                Undone::Unreadable(_) => {
                    tracing::error!(policy, key, reason = %undone, "no reply to give");
                    problem(RequestEnding::Unreadable, Problem::NotKept)
                }
                Undone::Ended => {
                    tracing::error!(policy, key, reason = %undone, "the request failed");
                    problem(RequestEnding::Failed, Problem::Interrupted)
                }
                Undone::Panicked => {
                    (RequestEnding::Panicked, failed(shared, identity.as_ref(), reached).await)
                }
                Undone::Handler(_)
                | Undone::Unwritable(_)
                | Undone::Database(_)
                | Undone::Commit(_) => {
                    tracing::error!(policy, key, reason = %undone, "the request failed");
                    (RequestEnding::Failed, failed(shared, identity.as_ref(), reached).await)
                }
            };
        }
    }
}

/// Whether a request that failed was run against another one's commit, which has the answer then: the first look
/// at a key can miss a commit of that moment, and a second one cannot. `None` where nobody can tell.
async fn outrun<C: HttpConnection>(
    shared: &Arc<Shared<C>>,
    identity: Option<&Arc<Identity>>,
) -> Option<bool> {
    let Some(of) = identity.cloned() else { return Some(false) };
    let on = shared.clone();
    let call = shared.db.call_within(shared.policy.deadline, move |conn| on.is_known(conn, &of));
    call.await
        .inspect_err(|error| {
            tracing::warn!(policy = shared.policy.name, reason = %error, "no second look at a key");
        })
        .ok()
}

/// The answer to a request that was undone, kept where the policy wants it kept.
async fn failed<C: HttpConnection>(
    shared: &Arc<Shared<C>>,
    identity: Option<&Arc<Identity>>,
    reached: bool,
) -> Reply {
    if let Some(of) = identity.cloned()
        && shared.policy.server_errors == Keep::Stored
        // Who is told to use a new key would do again what the first one has done outside.
        && !reached
    {
        let spent = shared.problem(Problem::Spent);
        let (on, kept) = (shared.clone(), spent.clone());
        let call = shared
            .db
            .call_within(shared.policy.deadline, move |conn| on.keep_failure(conn, &of, &kept));
        match call.await {
            Ok(true) => return spent,
            // Whoever was quicker has the key: a repeat gets that one's answer.
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(policy = shared.policy.name, reason = %error, "the failure was not kept");
            }
        }
    }
    shared.problem(Problem::Failed.beyond(reached))
}
