use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use db::{CallError, Class, Db};
use message::Fingerprint;
use migrations::SchemaError;

use super::backend::HttpConnection;
use super::identity::{self, Identity};
use super::policy::{Policy, PolicyError};
use super::problem::Problem;
use super::reply::Reply;
use super::telemetry::Telemetry;
use super::{Caller, RequestEnding, body, key};
use crate::backoff::Backoff;

/// Pauses between looks at a key that another request has, and between repetitions of a transaction.
const LOOKS: Backoff =
    Backoff { first: Duration::from_millis(10), longest: Duration::from_millis(200) };

/// A policy and the database that its keys are kept in: the state that
/// [`Idempotent`](super::Idempotent) takes, by `FromRef` or from the request's extensions, and what makes
/// [layers](Self::layer). Clones share everything.
pub struct Idempotency<C: HttpConnection> {
    pub(crate) shared: Arc<Shared<C>>,
}

pub(crate) struct Shared<C: HttpConnection> {
    pub(crate) policy: Policy,
    pub(crate) db: Db<C>,
    pub(crate) consumer: String,
    /// The consumer's part of an advisory lock's number.
    pub(crate) lock: i64,
    pub(crate) telemetry: Telemetry,
}

impl<C: HttpConnection> Clone for Idempotency<C> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<C: HttpConnection> std::fmt::Debug for Idempotency<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Idempotency").field("policy", &self.shared.policy).finish_non_exhaustive()
    }
}

/// A request as far as it is admitted.
pub(crate) struct Admitted {
    /// `None` where it has no key and needs none.
    pub(crate) identity: Option<Identity>,
    pub(crate) body: Bytes,
}

impl<C: HttpConnection> Idempotency<C> {
    /// Checks the policy. Install the metrics recorder before.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn new(policy: Policy, db: Db<C>) -> Result<Self, PolicyError> {
        policy.check(db.settings())?;
        let (consumer, telemetry) = (policy.consumer(), Telemetry::new(&policy.name));
        let lock = identity::lock(&Fingerprint::of_bytes(consumer.as_bytes()));
        Ok(Self { shared: Arc::new(Shared { policy, db, consumer, lock, telemetry }) })
    }

    /// Whether the tables are there and current: ask before you serve. Nothing else does; a request that finds them
    /// missing is answered with 503.
    ///
    /// # Errors
    /// [`SchemaError`] in [`CallError::Work`], which names the remedy; else why the database could not be asked.
    pub async fn check(&self) -> Result<(), CallError<SchemaError>> {
        self.shared.db.call(|conn| migrations::check(conn)).await
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.shared.policy
    }

    /// The consumer that its keys are stored under: `http:NAME`.
    #[must_use]
    pub fn consumer(&self) -> crate::Consumer<'_> {
        crate::Consumer(&self.shared.consumer)
    }
}

impl<C: HttpConnection> Shared<C> {
    /// Everything that can be refused before anything is stored.
    pub(crate) async fn admit(&self, request: Request) -> Result<(Parts, Admitted), Box<Response>> {
        let (parts, rest) = request.into_parts();
        let key = self.key(&parts)?;
        let admitted = self.admit_under(&parts, key, rest).await?;
        Ok((parts, admitted))
    }

    /// The request's key.
    pub(crate) fn key(&self, parts: &Parts) -> Result<Option<String>, Box<Response>> {
        key::key_of(&parts.method, &parts.headers, &self.policy)
            .map_err(|problem| self.refused(problem))
    }

    /// The rest of it.
    pub(crate) async fn admit_under(
        &self,
        parts: &Parts,
        key: Option<String>,
        rest: Body,
    ) -> Result<Admitted, Box<Response>> {
        let caller = parts.extensions.get::<Caller>();
        if key.is_some() && caller.is_none() && !self.policy.shared_scope {
            return Err(self.misconfigured(
                "the request has no `Caller` in its extensions; insert one where it is authenticated, in a layer \
                 outside of this, or set `shared_scope` for a service with one client",
            ));
        }
        let body = match body::whole(&parts.headers, rest, self.policy.max_body).await {
            Ok(body) => body,
            Err(problem) => return Err(self.refused(problem)),
        };
        let Some(key) = key else { return Ok(Admitted { identity: None, body }) };
        let identity = Identity::of(parts, caller, &key, &body, &self.policy)
            .map_err(|error| self.misconfigured(&error.to_string()))?;
        Ok(Admitted { identity: Some(identity), body })
    }

    pub(crate) fn misconfigured(&self, remedy: &str) -> Box<Response> {
        tracing::error!(policy = self.policy.name, reason = remedy, "cannot handle requests");
        self.end(RequestEnding::Misconfigured);
        Box::new(self.problem(Problem::Misconfigured).into_response())
    }

    /// The answer to a request that was not looked up.
    pub(crate) fn refused(&self, problem: Problem) -> Box<Response> {
        self.end(problem.ending());
        Box::new(self.problem(problem).into_response())
    }

    /// The same to one whose body cannot be read.
    pub(crate) fn unreadable(&self, fault: &serde_json::Error) -> Box<Response> {
        self.end(RequestEnding::BadBody);
        Box::new(Problem::BadBody.reply_over(&self.policy, fault).into_response())
    }

    pub(crate) fn problem(&self, problem: Problem) -> Reply {
        problem.reply(&self.policy)
    }

    pub(crate) fn end(&self, ending: RequestEnding) {
        self.telemetry.ended(ending);
    }
}

/// How long a request has waited for an earlier one.
pub(crate) struct Waiting {
    since: Instant,
    looks: u32,
}

impl Waiting {
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), looks: 0 }
    }

    /// Waits for the next look; false when the policy's time is over.
    pub(crate) async fn next<C: HttpConnection>(&mut self, shared: &Shared<C>) -> bool {
        if self.since.elapsed() >= shared.policy.wait {
            return false;
        }
        if self.looks == 0 {
            shared.telemetry.waits.increment(1);
        }
        self.looks = self.looks.saturating_add(1);
        tokio::time::sleep(LOOKS.pause(self.looks)).await;
        true
    }
}

/// What a database that cannot be used at all wants from a person; `None` where waiting helps.
pub(crate) const fn remedy(class: Class) -> Option<&'static str> {
    match class {
        Class::Schema => Some("run `relay migrate`, or migrations::run, on this database"),
        Class::Denied => Some("grant `counterfoil_consumer` to the role, see `relay roles`"),
        Class::Pooler => Some("set `transaction_pooler` in db::Settings"),
        Class::Contention | Class::Unavailable | Class::Other => None,
    }
}

/// A pause before a transaction is repeated for the how-manieth time.
pub(crate) async fn before_repeating(repeats: u32) {
    tokio::time::sleep(LOOKS.pause(repeats)).await;
}
