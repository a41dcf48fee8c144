use std::fmt;
use std::future::Future;
use std::sync::Arc;

use db::Db;
use message::{Fingerprint, OperationKey};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::CallFailure;
use super::ledger::{Ledger, LedgerOf};
use super::{Effect, EffectError, ProviderKey, Settings};
use crate::builder::InboxConnection;
use crate::telemetry::EffectTelemetry;
use crate::{BuildError, Consumer, rebuild};

/// The ledger of one consumer.
pub(crate) struct Shared {
    pub(crate) ledger: Box<dyn Ledger>,
    pub(crate) settings: Settings,
    pub(crate) telemetry: EffectTelemetry,
    pub(crate) consumer: String,
    /// This process, for people.
    pub(crate) owner: String,
}

impl Shared {
    /// A rebuild finds the effects of the first time: all generations of a consumer share them.
    pub(crate) fn new<C: InboxConnection>(db: Db<C>, consumer: &str, settings: Settings) -> Self {
        let consumer = rebuild::own(consumer).to_owned();
        let ledger =
            Box::new(LedgerOf { db, consumer: consumer.clone(), settings: settings.clone() });
        let telemetry = EffectTelemetry::new(&consumer);
        Self { ledger, settings, telemetry, consumer, owner: owner() }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ledger.fmt(f)
    }
}

fn owner() -> String {
    let host = std::env::var("HOSTNAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .unwrap_or_default();
    format!("{}:{}", host.trim(), std::process::id())
}

/// The effects of one operation: what it has done, or may have done, in the world.
///
/// In [`Handler::prepare`](crate::Handler::prepare) take it from [`Context::effects`](crate::Context::effects);
/// elsewhere, in an HTTP handler for example, make one with [`Effects::new`]. Clones share everything.
#[derive(Clone, Debug)]
pub struct Effects {
    pub(crate) shared: Arc<Shared>,
    pub(crate) operation: OperationKey,
    /// What is asked for where an effect does not say.
    pub(crate) fingerprint: Fingerprint,
    /// They are of another operation than the one at hand: what is decided about them wakes other messages than its.
    pub(crate) elsewhere: bool,
}

impl Effects {
    /// The effects of an operation, with default [`Settings`]. Keep one per service and take others from it with
    /// [`of`](Self::of).
    ///
    /// Not for a name that ends in the number of a generation: all generations share the effects of their consumer.
    #[must_use]
    pub fn new<C: InboxConnection>(
        db: Db<C>,
        consumer: Consumer<'_>,
        operation: &OperationKey,
    ) -> Self {
        Self::over(Shared::new(db, consumer.0, Settings::default()), operation)
    }

    /// The same with settings of yours.
    ///
    /// # Errors
    /// [`BuildError::BadSetting`].
    pub fn with<C: InboxConnection>(
        db: Db<C>,
        consumer: Consumer<'_>,
        operation: &OperationKey,
        settings: Settings,
    ) -> Result<Self, BuildError> {
        settings.check()?;
        Ok(Self::over(Shared::new(db, consumer.0, settings), operation))
    }

    fn over(shared: Shared, operation: &OperationKey) -> Self {
        Self {
            shared: Arc::new(shared),
            operation: operation.clone(),
            fingerprint: Fingerprint::of_bytes(&[]),
            elsewhere: false,
        }
    }

    /// The effects of another operation of the same consumer. A message that waits for one of them looks again every
    /// minute: what is decided about it wakes the messages of its own operation.
    #[must_use]
    pub fn of(&self, operation: &OperationKey) -> Self {
        let elsewhere = self.elsewhere || *operation != self.operation;
        Self { operation: operation.clone(), elsewhere, ..self.clone() }
    }

    /// The operation whose effects these are.
    #[must_use]
    pub const fn operation(&self) -> &OperationKey {
        &self.operation
    }

    /// What the provider is given for this effect.
    #[must_use]
    pub fn key(&self, name: &str) -> ProviderKey {
        ProviderKey::of(Consumer(&self.shared.consumer), &self.operation, name)
    }

    /// One effect, to be told what may be done about it. Its name is stored for ever and tells it from the others of
    /// its operation.
    pub fn effect<'a>(&'a self, name: &'a str) -> Effect<'a> {
        Effect::new(self, name)
    }

    /// Performs an effect once, with everything left as it is: nothing is known about the provider, so that an
    /// unknown outcome is a person's to decide. Short for `effect(name).once(call)`.
    ///
    /// # Errors
    /// [`EffectError`].
    pub async fn once<R, F, Fut>(&self, name: &str, call: F) -> Result<R, EffectError>
    where
        R: Serialize + DeserializeOwned + Send,
        F: FnOnce(ProviderKey) -> Fut + Send,
        Fut: Future<Output = Result<R, CallFailure>> + Send,
    {
        self.effect(name).once(call).await
    }
}
