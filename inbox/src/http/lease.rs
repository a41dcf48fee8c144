use std::sync::Arc;
use std::time::{Duration, Instant};

use db::{CallError, Class, classify};
use diesel::result::Error;
use message::MessageId;
use tokio::time::sleep;
use tracing::Instrument as _;

use super::backend::{HttpBackend, HttpConnection};
use super::front::{Shared, before_repeating};
use super::identity::Identity;
use super::stored::{self, Kept};
use crate::Consumer;
use crate::store::micros;
use crate::store::request::Claim;

/// What a request outside a transaction finds that wants to run its handler.
#[derive(Debug)]
pub(crate) enum Begun {
    /// The key is free, or was left behind: run the handler.
    Ours(u64),
    Standing(Stands),
}

/// What stands under a key.
#[derive(Debug)]
pub(crate) enum Stands {
    Completed(Kept),
    Mismatch,
    Busy,
    Unreadable(String),
    Absent,
}

/// The right to run a handler, by a committed row.
pub(crate) struct Lease<C: HttpConnection> {
    shared: Arc<Shared<C>>,
    identity: Arc<Identity>,
    owner: Arc<str>,
}

impl<C: HttpConnection> Clone for Lease<C> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            identity: self.identity.clone(),
            owner: self.owner.clone(),
        }
    }
}

type Called<T> = Result<T, CallError<Error>>;

impl<C: HttpConnection> Lease<C> {
    /// The key's standing for a request that wants to run its handler.
    pub(crate) async fn begin(
        shared: &Arc<Shared<C>>,
        identity: &Arc<Identity>,
    ) -> Called<(Begun, Self)> {
        // A number of its own for every run: owners are never mistaken for each other, wherever they are.
        let owner: Arc<str> = MessageId::default().to_string().into();
        let lease = Self { shared: shared.clone(), identity: identity.clone(), owner };
        let (mut repeats, mut perhaps) = (0, false);
        let begun = loop {
            let on = lease.clone();
            let call = shared.db.call_within(shared.policy.deadline, move |conn| on.claim(conn));
            let called = call.await;
            perhaps |= called.as_ref().is_err_and(|error| {
                !matches!(error, CallError::PoolExhausted { .. } | CallError::Begin(_))
            });
            match called {
                Ok(begun) => break begun,
                // Of a pool whose server was restarted each connection fails once. Where the claim took effect
                // all the same, the owner is told so.
                Err(
                    CallError::Work(error) | CallError::Begin(error) | CallError::Commit(error),
                ) if repeats < shared.policy.transaction_retries
                    && matches!(classify(&error), Class::Contention | Class::Unavailable) =>
                {
                    repeats += 1;
                    before_repeating(repeats).await;
                }
                Err(error) => {
                    if perhaps {
                        tokio::spawn(lease.let_go().in_current_span());
                    }
                    return Err(error);
                }
            }
        };
        Ok((begun, lease))
    }

    fn claim(&self, conn: &mut C) -> Result<Begun, Error> {
        let policy = &self.shared.policy;
        let (lease, window) = (micros(policy.lease), micros(policy.keep));
        let identity = &self.identity;
        if let Some(epoch) =
            C::Backend::begin_request(conn, &self.row(), &identity.fingerprint, lease, window)?
        {
            return Ok(Begun::Ours(epoch.unsigned_abs()));
        }
        // Where it was freed between the two statements the next look finds it so.
        read(conn, &self.shared, identity).map(Begun::Standing)
    }

    /// What stands under the key, for a request that is not to run any more.
    pub(crate) async fn standing(
        shared: &Arc<Shared<C>>,
        identity: &Arc<Identity>,
    ) -> Called<Stands> {
        let (on, of) = (shared.clone(), identity.clone());
        shared.db.call_within(shared.policy.deadline, move |conn| read(conn, &on, &of)).await
    }

    fn row(&self) -> Claim<'_> {
        Claim {
            consumer: Consumer(&self.shared.consumer),
            operation: &self.identity.operation,
            owner: &self.owner,
        }
    }

    /// Prolongs the lease again and again; returns when it is somebody else's.
    pub(crate) async fn keep(self) {
        let policy = &self.shared.policy;
        // A millisecond at least: zero would never let anybody else run.
        let quarter = (policy.lease / 4).max(Duration::from_millis(1));
        let mut pause = quarter;
        loop {
            sleep(pause).await;
            let (on, lease) = (self.clone(), micros(policy.lease));
            // One that hangs on a dead connection must leave time for another one.
            let call = self.shared.db.call_within(quarter, move |conn| {
                C::Backend::renew_request(conn, &on.row(), lease)
            });
            match call.await {
                Ok(true) => pause = quarter,
                Ok(false) => return,
                // Whether it is lost, the completion will tell.
                Err(error) => {
                    pause = quarter / 2;
                    self.shared.telemetry.renewals_failed.increment(1);
                    let (policy, key) = (&policy.name, self.identity.short());
                    tracing::warn!(policy, key, reason = %error, "a lease was not renewed");
                }
            }
        }
    }

    /// How long one try to settle it may take: one that hangs on a dead connection must leave time for another.
    fn patience(&self) -> Duration {
        let policy = &self.shared.policy;
        (policy.lease / 4).max(Duration::from_secs(1)).min(policy.deadline)
    }

    /// Keeps the reply; false where somebody else has taken over.
    pub(crate) async fn complete(&self, stored: &str) -> Called<bool> {
        let (on, stored) = (self.clone(), stored.to_owned());
        let call = self.shared.db.call_within(self.patience(), move |conn| {
            C::Backend::complete_request(conn, &on.row(), &stored)
        });
        call.await
    }

    /// Frees the key; false where somebody else has taken over.
    pub(crate) async fn release(&self) -> Called<bool> {
        let on = self.clone();
        let call = self
            .shared
            .db
            .call_within(self.patience(), move |conn| C::Backend::release_request(conn, &on.row()));
        call.await
    }

    /// Frees the key when the database can be used again, unless the lease ends before.
    pub(crate) async fn let_go(self) {
        let (policy, since) = (&self.shared.policy, Instant::now());
        let mut tried = 0;
        while since.elapsed() < policy.lease {
            tried += 1;
            match self.release().await {
                Ok(_) => return,
                Err(error) => {
                    let key = self.identity.short();
                    tracing::warn!(policy = policy.name, key, reason = %error, tried, "a key is not freed yet");
                    before_repeating(tried).await;
                }
            }
        }
    }
}

fn read<C: HttpConnection>(
    conn: &mut C,
    shared: &Shared<C>,
    identity: &Identity,
) -> Result<Stands, Error> {
    let consumer = Consumer(&shared.consumer);
    let found = C::Backend::request(conn, consumer, &identity.operation, &identity.fingerprint)?;
    Ok(match found {
        None => Stands::Absent,
        Some(standing) if !standing.same => Stands::Mismatch,
        Some(standing) => match &standing.reply {
            None => Stands::Busy,
            Some(reply) => {
                match stored::read(Some(reply), &identity.context(consumer.0), &shared.policy) {
                    Ok(kept) => Stands::Completed(kept),
                    Err(error) => Stands::Unreadable(error.to_string()),
                }
            }
        },
    })
}
