use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use db::{CallError, Class, classify};
use futures_util::FutureExt;
use tokio::select;
use tower_service::Service;
use tracing::Instrument as _;

use super::RequestEnding;
use super::backend::HttpConnection;
use super::body;
use super::course::Course;
use super::front::{Shared, Waiting, before_repeating, remedy};
use super::identity::Identity;
use super::lease::{Begun, Lease, Stands};
use super::policy::Keep;
use super::problem::Problem;
use super::reply::Reply;
use super::stored::{self, Kept};
use super::unkept::Unkept;

/// One request through the layer.
pub(crate) async fn handle<S, C>(
    shared: Arc<Shared<C>>,
    mut inner: S,
    request: Request,
) -> Result<Response, Infallible>
where
    S: Service<Request, Response = Response, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    C: HttpConnection,
{
    let (parts, rest) = request.into_parts();
    let key = match shared.key(&parts) {
        Ok(None) => {
            shared.end(RequestEnding::Unkeyed);
            return inner.call(Request::from_parts(parts, rest)).await;
        }
        Ok(key) => key,
        Err(response) => return Ok(*response),
    };
    let course = Course::new(shared.clone());
    let admitted = match shared.admit_under(&parts, key, rest).await {
        Ok(admitted) => admitted,
        Err(response) => {
            course.close();
            return Ok(*response);
        }
    };
    let Some(identity) = admitted.identity.map(Arc::new) else {
        course.close();
        return Ok(*shared.misconfigured("a key was lost"));
    };
    let since = Instant::now();
    let mut request = Request::from_parts(parts, Body::from(admitted.body));
    request.extensions_mut().insert(identity.operation.clone());
    let mut job = Some(Job { inner, request });
    let (mut waiting, mut overtaken, mut own) = (Waiting::new(), false, None);
    let (ending, response) = loop {
        let looked = match job.take() {
            // A task of its own: a client that goes away must not leave half a run behind, nor a key that is taken
            // for nobody.
            Some(job) => {
                let looking = look(shared.clone(), identity.clone(), job).in_current_span();
                tokio::spawn(looking).await
            }
            None => Ok(look_after(&shared, &identity, &mut own).await),
        };
        match looked {
            Ok(Looked::Ended(ending, response)) => break (ending, response),
            Ok(Looked::Busy(unused)) => {
                job = unused;
                if !waiting.next(&shared).await {
                    break problem(&shared, RequestEnding::InProgress, Problem::InProgress);
                }
            }
            Ok(Looked::Overtaken(response)) => (overtaken, own) = (true, response),
            Err(_) => break problem(&shared, RequestEnding::Unknown, Problem::Unknown),
        }
    };
    course.end(if overtaken { RequestEnding::Overtaken } else { ending });
    shared.telemetry.seconds.record(since.elapsed());
    Ok(response)
}

/// What is to be run.
struct Job<S> {
    inner: S,
    request: Request,
}

/// What has come of a look at a key.
enum Looked<S> {
    Ended(RequestEnding, Response),
    /// Another request has the key; what is to be run is given back.
    Busy(Option<Job<S>>),
    /// It was run, and somebody else has taken over; what it would have answered, if it got so far.
    Overtaken(Option<Response>),
}

/// Looks at the key, and runs the job where it is free.
async fn look<S, C>(shared: Arc<Shared<C>>, identity: Arc<Identity>, job: Job<S>) -> Looked<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    C: HttpConnection,
{
    let (policy, key) = (&shared.policy.name, identity.short());
    let (epoch, lease) = match Lease::begin(&shared, &identity).await {
        Ok((Begun::Ours(epoch), lease)) => (epoch, lease),
        Ok((Begun::Standing(stands), _)) => {
            return match answered(&shared, &identity, stands) {
                Some((ending, response)) => Looked::Ended(ending, response),
                None => Looked::Busy(Some(job)),
            };
        }
        Err(error) => {
            unclaimed(policy, key, &error);
            let (ending, response) =
                problem(&shared, RequestEnding::Unavailable, Problem::Unavailable);
            return Looked::Ended(ending, response);
        }
    };
    if epoch > 1 {
        shared.telemetry.takeovers.increment(1);
        tracing::warn!(policy, key, epoch, "takes a run over, its handler may run twice");
    }
    let Job { mut inner, request } = job;
    let handler = async move { inner.call(request).await };
    match run(shared.clone(), identity.clone(), lease, handler).await {
        Ok((ending, response)) => Looked::Ended(ending, response),
        Err(own) => {
            tracing::warn!(policy, key, "a run was taken over before it could be completed");
            Looked::Overtaken(own)
        }
    }
}

/// Says why no key could be claimed, and what to do where only a person can.
fn unclaimed(policy: &str, key: &str, error: &CallError<diesel::result::Error>) {
    let class = match error {
        CallError::Work(error) | CallError::Begin(error) | CallError::Commit(error) => {
            classify(error)
        }
        _ => Class::Other,
    };
    match remedy(class) {
        Some(remedy) => {
            tracing::error!(policy, key, reason = %error, remedy, "no key can be claimed")
        }
        None => tracing::warn!(policy, key, reason = %error, "no key could be claimed"),
    }
}

/// Looks for the answer of whoever has taken over. It only reads: taking the key now would take it from whoever runs.
/// Where there is nobody any more the run's own answer is as good as any, and says more than that it has run.
async fn look_after<S, C: HttpConnection>(
    shared: &Arc<Shared<C>>,
    identity: &Arc<Identity>,
    own: &mut Option<Response>,
) -> Looked<S> {
    let stands = match Lease::standing(shared, identity).await {
        Ok(Stands::Absent) => None,
        Ok(stands) => Some(stands),
        Err(error) => {
            let (policy, key) = (&shared.policy.name, identity.short());
            tracing::warn!(policy, key, reason = %error, "who has taken a run over cannot be asked");
            None
        }
    };
    let ended = match stands {
        Some(stands) => answered(shared, identity, stands),
        None => Some(match own.take() {
            Some(own) => (RequestEnding::Overtaken, own),
            None => problem(shared, RequestEnding::Overtaken, Problem::Interrupted),
        }),
    };
    ended.map_or(Looked::Busy(None), |(ending, response)| Looked::Ended(ending, response))
}

/// The answer of an earlier request, where there is one.
fn answered<C: HttpConnection>(
    shared: &Shared<C>,
    identity: &Identity,
    stands: Stands,
) -> Option<(RequestEnding, Response)> {
    Some(match stands {
        Stands::Busy | Stands::Absent => return None,
        Stands::Completed(Kept::Reply(reply)) => (RequestEnding::Replayed, reply.replayed()),
        Stands::Completed(Kept::NotKept) => {
            problem(shared, RequestEnding::NotKept, Problem::NotKept)
        }
        Stands::Mismatch => problem(shared, RequestEnding::Mismatch, Problem::Mismatch),
        Stands::Unreadable(reason) => {
            let (policy, key) = (&shared.policy.name, identity.short());
            tracing::error!(policy, key, reason, "stored reply unreadable");
            problem(shared, RequestEnding::Unreadable, Problem::NotKept)
        }
    })
}

fn problem<C: HttpConnection>(
    shared: &Shared<C>,
    ending: RequestEnding,
    problem: Problem,
) -> (RequestEnding, Response) {
    (ending, shared.problem(problem).into_response())
}

/// Runs a handler under its lease and keeps what it says; an error where somebody else has taken over, with its answer
/// if it has one.
async fn run<C: HttpConnection>(
    shared: Arc<Shared<C>>,
    identity: Arc<Identity>,
    lease: Lease<C>,
    handler: impl Future<Output = Result<Response, Infallible>>,
) -> Result<(RequestEnding, Response), Option<Response>> {
    let (policy, key) = (&shared.policy.name, identity.short());
    // The body is the handler's, too, and can take as long.
    let answered = async {
        let (ending, response) = match AssertUnwindSafe(handler).catch_unwind().await {
            Ok(Ok(response)) => (RequestEnding::First, response),
            Err(_) => {
                tracing::error!(policy, key, "the handler panicked");
                problem(&shared, RequestEnding::Panicked, Problem::Interrupted)
            }
        };
        let status = response.status();
        let kept = shared.policy.keeps(status) == Keep::Stored && !Unkept::is_in(&response);
        // Its body and its sealing are the application's as well.
        let whole = AssertUnwindSafe(whole(&shared, &identity, response, kept)).catch_unwind();
        let whole = whole.await.unwrap_or_else(|_| Whole::broken(&shared, status, "a panic"));
        (ending, kept, whole)
    };
    let (ending, kept, whole) = select! {
        answered = answered => answered,
        // Whoever has it now runs the handler: the less of it runs twice, the better.
        () = lease.clone().keep() => return Err(None),
    };
    let Whole { response, stored, fault } = whole;
    if !kept {
        // What is not kept is this client's alone, whoever has the key now, and waits for nothing.
        if lease.release().await.is_err() {
            tokio::spawn(lease.let_go().in_current_span());
        }
        let refused = ending == RequestEnding::First;
        return Ok((if refused { RequestEnding::Refused } else { ending }, response));
    }
    let ending = match fault {
        None => ending,
        Some(fault) => {
            tracing::error!(policy, key, reason = %fault, "a reply cannot be kept");
            RequestEnding::Unrecorded
        }
    };
    // Nobody renews the lease meanwhile: a try to settle it is as good. When it has ended, whoever comes may run
    // the handler again.
    let (since, mut tried) = (Instant::now(), 0);
    loop {
        tried += 1;
        let error = match lease.complete(&stored).await {
            Ok(true) => return Ok((ending, response)),
            Ok(false) => return Err(Some(response)),
            Err(error) => error,
        };
        if since.elapsed() >= shared.policy.lease {
            tracing::error!(policy, key, reason = %error, "a reply is not kept");
            // The client gets the truth; only somebody who repeats all the same is worse off for it.
            return Ok((RequestEnding::Unrecorded, response));
        }
        tracing::warn!(policy, key, reason = %error, tried, "a reply is not kept yet");
        before_repeating(tried).await;
    }
}

/// A response with what is to be stored of it.
struct Whole {
    response: Response,
    stored: String,
    /// Why nothing more is stored than that the handler has run. It has: nobody may run it again.
    fault: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Whole {
    /// Of a handler that has run and whose answer is not to be had.
    fn broken<C: HttpConnection>(
        shared: &Shared<C>,
        status: StatusCode,
        fault: &'static str,
    ) -> Self {
        Self {
            response: shared.problem(Problem::NotKept).into_response(),
            stored: stored::not_kept(status),
            fault: Some(fault.into()),
        }
    }
}

/// A body of unknown length is not read: its end may never come. Nor is one that is not to be kept.
async fn whole<C: HttpConnection>(
    shared: &Shared<C>,
    identity: &Identity,
    response: Response,
    kept: bool,
) -> Whole {
    let policy = &shared.policy;
    let bare = stored::not_kept(response.status());
    let upper = response.body().size_hint().upper();
    if !kept || upper.is_none_or(|upper| upper > policy.max_reply as u64) {
        return Whole { response, stored: bare, fault: None };
    }
    let (parts, rest) = response.into_parts();
    let Ok(body) = body::whole(&HeaderMap::new(), rest, policy.max_reply).await else {
        return Whole::broken(shared, parts.status, "the handler's response body broke off");
    };
    let reply = Reply { status: parts.status, headers: parts.headers.clone(), body: body.clone() };
    let written = stored::written(&reply, &identity.context(&shared.consumer), policy);
    let response = Response::from_parts(parts, Body::from(body));
    match written {
        Ok(stored) => Whole { response, stored, fault: None },
        Err(fault) => Whole { response, stored: bare, fault: Some(fault) },
    }
}
