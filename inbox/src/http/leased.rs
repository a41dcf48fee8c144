use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tokio::select;
use tower_service::Service;
use tracing::Instrument as _;

use super::RequestEnding;
use super::backend::HttpConnection;
use super::body;
use super::front::{Shared, Waiting, before_repeating};
use super::identity::Identity;
use super::lease::{Begun, Lease};
use super::policy::Keep;
use super::problem::Problem;
use super::reply::Reply;
use super::stored::{self, Kept};

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
    let admitted = match shared.admit_under(&parts, key, rest).await {
        Ok(admitted) => admitted,
        Err(response) => return Ok(*response),
    };
    let Some(identity) = admitted.identity.map(Arc::new) else {
        return Ok(*shared.misconfigured("a key was lost"));
    };
    let since = Instant::now();
    let mut job =
        Some(Job { inner, request: Request::from_parts(parts, Body::from(admitted.body)) });
    let (mut waiting, mut overtaken) = (Waiting::new(), false);
    let (ending, response) = loop {
        // A task of its own: a client that goes away must not leave half a run behind, nor a key that is taken
        // for nobody.
        let looking = look(shared.clone(), identity.clone(), job.take()).in_current_span();
        match tokio::spawn(looking).await {
            Ok(Looked::Ended(ending, response)) => break (ending, response),
            Ok(Looked::Busy(unused)) => {
                job = unused;
                if !waiting.next(&shared).await {
                    break problem(&shared, RequestEnding::InProgress, Problem::InProgress);
                }
            }
            Ok(Looked::Overtaken) => {
                let (policy, key) = (&shared.policy.name, identity.short());
                tracing::warn!(policy, key, "a run was taken over before it could be completed");
                overtaken = true;
            }
            Err(_) => break problem(&shared, RequestEnding::Unknown, Problem::Unknown),
        }
    };
    shared.end(if overtaken { RequestEnding::Overtaken } else { ending });
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
    /// It was run, and somebody else has taken over.
    Overtaken,
}

/// Looks at the key, and runs the job where it is free.
async fn look<S, C>(
    shared: Arc<Shared<C>>,
    identity: Arc<Identity>,
    job: Option<Job<S>>,
) -> Looked<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    C: HttpConnection,
{
    let (policy, key) = (&shared.policy.name, identity.short());
    let (ending, response) = match Lease::begin(&shared, &identity).await {
        Ok((Begun::Ours(epoch), lease)) => {
            // Once overtaken it is for the other one to answer: what it left is looked at again. It has left
            // nothing, and nobody is to wait for a run that there is not.
            let Some(Job { mut inner, request }) = job else {
                if let Err(error) = lease.release().await {
                    tracing::warn!(policy, key, reason = %error, "a key stays taken for its lease");
                }
                let (ending, response) =
                    problem(&shared, RequestEnding::Overtaken, Problem::Unknown);
                return Looked::Ended(ending, response);
            };
            if epoch > 1 {
                shared.telemetry.takeovers.increment(1);
                tracing::warn!(policy, key, epoch, "takes a run over, its handler may run twice");
            }
            match run(shared.clone(), identity.clone(), lease, inner.call(request)).await {
                Some(ended) => ended,
                None => return Looked::Overtaken,
            }
        }
        Ok((Begun::Completed(Kept::Reply(reply)), _)) => {
            (RequestEnding::Replayed, reply.replayed())
        }
        Ok((Begun::Completed(Kept::NotKept), _)) => {
            problem(&shared, RequestEnding::NotKept, Problem::NotKept)
        }
        Ok((Begun::Mismatch, _)) => problem(&shared, RequestEnding::Mismatch, Problem::Mismatch),
        Ok((Begun::Busy, _)) => return Looked::Busy(job),
        Ok((Begun::Unreadable(reason), _)) => {
            tracing::error!(policy, key, reason, "stored reply unreadable");
            problem(&shared, RequestEnding::Unreadable, Problem::NotKept)
        }
        Err(error) => {
            tracing::warn!(policy, key, reason = %error, "no key could be claimed");
            problem(&shared, RequestEnding::Unavailable, Problem::Unavailable)
        }
    };
    Looked::Ended(ending, response)
}

fn problem<C: HttpConnection>(
    shared: &Shared<C>,
    ending: RequestEnding,
    problem: Problem,
) -> (RequestEnding, Response) {
    (ending, shared.problem(problem).into_response())
}

/// Runs a handler under its lease and keeps what it says; `None` where somebody else has taken over.
async fn run<C: HttpConnection>(
    shared: Arc<Shared<C>>,
    identity: Arc<Identity>,
    lease: Lease<C>,
    handler: impl Future<Output = Result<Response, Infallible>>,
) -> Option<(RequestEnding, Response)> {
    // The body is the handler's, too, and can take as long.
    let answered = async {
        let (ending, response) = match AssertUnwindSafe(handler).catch_unwind().await {
            Ok(Ok(response)) => (RequestEnding::First, response),
            Err(_) => {
                let (policy, key) = (&shared.policy.name, identity.short());
                tracing::error!(policy, key, "the handler panicked");
                problem(&shared, RequestEnding::Panicked, Problem::Interrupted)
            }
        };
        let kept = shared.policy.keeps(response.status()) == Keep::Stored;
        (ending, kept, whole(&shared, &identity, response, kept).await)
    };
    let (ending, kept, whole) = select! {
        answered = answered => answered,
        // Whoever has it now runs the handler: the less of it runs twice, the better.
        () = lease.clone().keep() => return None,
    };
    let Whole { response, stored, fault } = whole;
    let ending = match fault {
        None => ending,
        Some(fault) => {
            let (policy, key) = (&shared.policy.name, identity.short());
            tracing::error!(policy, key, reason = %fault, "a reply cannot be kept");
            RequestEnding::Unrecorded
        }
    };
    // Nobody renews the lease meanwhile: a try to settle it is as good. When it has ended, whoever comes may run
    // the handler again.
    let (since, mut tried) = (Instant::now(), 0);
    loop {
        tried += 1;
        let settled = if kept { lease.complete(&stored).await } else { lease.release().await };
        match settled {
            // Freed, perhaps by an earlier try whose answer was lost, or taken over: what is not kept is this client's
            // alone.
            Ok(_) if !kept && ending == RequestEnding::First => {
                return Some((RequestEnding::Refused, response));
            }
            Ok(mine) if mine || !kept => return Some((ending, response)),
            Ok(_) => return None,
            Err(error) => {
                let (policy, key) = (&shared.policy.name, identity.short());
                if since.elapsed() >= shared.policy.lease {
                    tracing::error!(policy, key, reason = %error, "a reply is not kept");
                    // The client gets the truth; only somebody who repeats all the same is worse off for it.
                    return Some((RequestEnding::Unrecorded, response));
                }
                tracing::warn!(policy, key, reason = %error, tried, "a reply is not kept yet");
                before_repeating(tried).await;
            }
        }
    }
}

/// A response with what is to be stored of it.
struct Whole {
    response: Response,
    stored: String,
    /// Why nothing more is stored than that the handler has run. It has: nobody may run it again.
    fault: Option<Box<dyn std::error::Error + Send + Sync>>,
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
        let response = shared.problem(Problem::NotKept).into_response();
        let fault = Some("the handler's response body broke off".into());
        return Whole { response, stored: bare, fault };
    };
    let reply = Reply { status: parts.status, headers: parts.headers.clone(), body: body.clone() };
    let written = stored::written(&reply, &identity.context(&shared.consumer), policy);
    let response = Response::from_parts(parts, Body::from(body));
    match written {
        Ok(stored) => Whole { response, stored, fault: None },
        Err(fault) => Whole { response, stored: bare, fault: Some(fault) },
    }
}
