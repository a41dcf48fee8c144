use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::Response;
use futures_util::future::BoxFuture;
use tower_layer::Layer;
use tower_service::Service;

use super::backend::HttpConnection;
use super::front::{Idempotency, Shared};
use super::leased;

/// A tower layer that runs a handler once per `Idempotency-Key` as far as that can be done from outside
/// of it: for handlers whose effects are not in one transaction with us, such as calls to a provider.
///
/// The key is claimed and committed *before* the handler runs and its reply is stored *after* it, so
/// between the two anything can happen. **The handler may run twice**: when its process dies, or cannot
/// reach the database for longer than [`Policy::lease`](super::Policy::lease), a repeat runs it again,
/// although it may have done everything. Perform its effects through [`Effects`](crate::effect::Effects) of the
/// [`OperationKey`](message::OperationKey) that the layer puts into the request's extensions: a second run then finds
/// what the first one did, and gives the provider the same key. [`Idempotent`](super::Idempotent) has no such gap; use it
/// wherever the effect is in this database.
///
/// What holds: while a run is alive no other one begins; a repeat after it gets its reply; an owner that
/// was taken over can overwrite nothing. A handler that panics or answers with what the policy does not
/// keep frees the key and undoes nothing. Client disconnects do not stop a run.
///
/// Bodies of requests with a key are read whole, up to [`Policy::max_body`](super::Policy::max_body).
/// A reply whose length is not known beforehand (a stream, server-sent events) or is over
/// [`Policy::max_reply`](super::Policy::max_reply) is passed on as it is, and repeats get 409: put no layer
/// around routes that stream. It belongs inside of what authenticates and limits.
pub struct IdempotencyLayer<C: HttpConnection> {
    shared: Arc<Shared<C>>,
}

impl<C: HttpConnection> Idempotency<C> {
    /// The weaker form, for handlers that are no transaction. See [`IdempotencyLayer`].
    #[must_use]
    pub fn layer(&self) -> IdempotencyLayer<C> {
        IdempotencyLayer { shared: self.shared.clone() }
    }
}

impl<C: HttpConnection> Clone for IdempotencyLayer<C> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<C: HttpConnection> std::fmt::Debug for IdempotencyLayer<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdempotencyLayer")
            .field("policy", &self.shared.policy)
            .finish_non_exhaustive()
    }
}

impl<S, C: HttpConnection> Layer<S> for IdempotencyLayer<C> {
    type Service = IdempotencyService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        IdempotencyService { inner, shared: self.shared.clone() }
    }
}

/// What an [`IdempotencyLayer`] makes of a service.
pub struct IdempotencyService<S, C: HttpConnection> {
    inner: S,
    shared: Arc<Shared<C>>,
}

impl<S: Clone, C: HttpConnection> Clone for IdempotencyService<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: self.shared.clone() }
    }
}

impl<S, C: HttpConnection> std::fmt::Debug for IdempotencyService<S, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdempotencyService").finish_non_exhaustive()
    }
}

impl<S, C> Service<Request> for IdempotencyService<S, C>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    C: HttpConnection,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The one that was told to be ready is the one to call.
        let fresh = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, fresh);
        Box::pin(leased::handle(self.shared.clone(), inner, request))
    }
}
