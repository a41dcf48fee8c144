use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use message::Event;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};

use crate::{Context, Failure, OnReplay, OnceError};

/// Applies one kind of event, with a part that may talk to the world before.
///
/// The two parts keep calls to the world out of the transaction: `prepare` is async and has no
/// connection, `apply` is synchronous and has nothing but one. Where `prepare` is not needed use
/// [`Builder::on`](crate::Builder::on) with a closure.
pub trait Handler<C>: Send + Sync + 'static {
    /// What a replay may do with it.
    const ON_REPLAY: OnReplay;

    /// The event; its `KIND` selects the messages.
    type Event: Event + DeserializeOwned + Send + Sync + 'static;
    /// What `prepare` found out for `apply`.
    type Prepared: Send + Sync + 'static;
    /// The result, stored with the operation.
    type Receipt: Serialize;

    /// Runs before the transaction, once per attempt, and not where the operation took effect before.
    /// It can run more than once for one operation (a crash, a failed `apply`, two deliveries at the
    /// same time): what it does outside must stand that. Calls that must not happen twice go through
    /// [`Context::effects`].
    ///
    /// # Errors
    /// [`Failure`]; `apply` does not run.
    fn prepare(
        &self,
        event: &Self::Event,
        context: &Context<'_>,
    ) -> impl Future<Output = Result<Self::Prepared, Failure>> + Send;

    /// Runs inside the transaction that holds the claim, possibly several times: a transaction that
    /// lost against another one is repeated whole with the same `prepared`. Everything it writes
    /// through `tx`, outgoing messages included, commits with the claim or not at all.
    ///
    /// # Errors
    /// [`Failure`]; the transaction is rolled back.
    fn apply(
        &self,
        tx: &mut C,
        event: &Self::Event,
        prepared: &Self::Prepared,
        context: &Context<'_>,
    ) -> Result<Self::Receipt, Failure>;
}

/// A decoded event together with its handler.
pub(crate) trait Work<C>: Send + Sync {
    /// The first part; `None` where there is none.
    fn prepare<'a>(
        &'a self,
        context: &'a Context<'a>,
    ) -> Option<BoxFuture<'a, Result<(), Failure>>>;

    /// Whether it has a first part.
    fn prepares(&self) -> bool;

    /// The second part; `None` where the first has to run before.
    fn apply(&self, tx: &mut C, context: &Context<'_>) -> Option<Result<Box<RawValue>, Failure>>;
}

/// A closure's work.
pub(crate) struct Applied<E, F> {
    pub(crate) event: E,
    pub(crate) apply: Arc<F>,
}

impl<C, E, R, F> Work<C> for Applied<E, F>
where
    E: Send + Sync,
    R: Serialize,
    F: Fn(&mut C, &E, &Context<'_>) -> Result<R, Failure> + Send + Sync,
{
    fn prepare<'a>(&'a self, _: &'a Context<'a>) -> Option<BoxFuture<'a, Result<(), Failure>>> {
        None
    }

    fn prepares(&self) -> bool {
        false
    }

    fn apply(&self, tx: &mut C, context: &Context<'_>) -> Option<Result<Box<RawValue>, Failure>> {
        Some((self.apply)(tx, &self.event, context).and_then(|receipt| raw(&receipt)))
    }
}

/// A [`Handler`]'s work.
pub(crate) struct Handled<C, H: Handler<C>> {
    pub(crate) event: H::Event,
    pub(crate) handler: Arc<H>,
    pub(crate) prepared: Mutex<Option<Arc<H::Prepared>>>,
}

impl<C, H: Handler<C>> Work<C> for Handled<C, H> {
    fn prepare<'a>(
        &'a self,
        context: &'a Context<'a>,
    ) -> Option<BoxFuture<'a, Result<(), Failure>>> {
        Some(Box::pin(async move {
            let prepared = self.handler.prepare(&self.event, context).await?;
            *self.prepared.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Arc::new(prepared));
            Ok(())
        }))
    }

    fn prepares(&self) -> bool {
        true
    }

    fn apply(&self, tx: &mut C, context: &Context<'_>) -> Option<Result<Box<RawValue>, Failure>> {
        // Not held while the handler runs: a panic there must not spoil the next attempt.
        let prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(
            self.handler
                .apply(tx, &self.event, &prepared, context)
                .and_then(|receipt| raw(&receipt)),
        )
    }
}

fn raw<R: Serialize>(receipt: &R) -> Result<Box<RawValue>, Failure> {
    to_raw_value(receipt).map_err(|error| OnceError::UnwritableResult(error).into())
}
