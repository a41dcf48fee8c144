//! Effects under test: a provider in the test's own process that notes what it is called with.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use inbox::Consumer;
use inbox::effect::admin::{self, Effect, Selection};
use inbox::effect::{CallFailure, EffectError, Effects, Policy, ProviderKey, Settings};
use message::OperationKey;
use tokio::sync::Semaphore;

use crate::database::Database;
use crate::inbox::{BILLING, Store};

/// The effect all scenarios use.
pub const CHARGE: &str = "charge";

/// Notes each call's key.
#[derive(Clone, Debug, Default)]
pub struct Provider(Arc<Mutex<Vec<ProviderKey>>>);

impl Provider {
    /// What it was called with, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<ProviderKey> {
        self.0.lock().expect("no panic").clone()
    }

    /// How often it was called.
    #[must_use]
    pub fn count(&self) -> usize {
        self.calls().len()
    }

    /// A call that is noted, and answers this.
    ///
    /// # Errors
    /// As it is told to.
    pub async fn answers<R>(
        &self,
        key: ProviderKey,
        answer: Result<R, CallFailure>,
    ) -> Result<R, CallFailure> {
        self.0.lock().expect("no panic").push(key);
        answer
    }
}

/// An operation.
#[must_use]
pub fn operation(id: &str) -> OperationKey {
    OperationKey::new("order.placed", id).expect("valid")
}

/// The effects of operation `id`.
#[must_use]
pub fn effects<C: Store>(database: &Database, id: &str) -> Effects {
    effects_with::<C>(database, id, Settings::default())
}

/// The same with settings.
#[must_use]
pub fn effects_with<C: Store>(database: &Database, id: &str, settings: Settings) -> Effects {
    Effects::with(C::pool(database), BILLING, &operation(id), settings)
        .expect("settings that can work")
}

/// Every effect of the consumer.
pub fn all<C: Store>(conn: &mut C) -> Vec<Effect> {
    admin::list(conn, &Selection::default()).expect("reads")
}

/// The only effect there is.
pub fn only<C: Store>(conn: &mut C) -> Effect {
    let [effect] = <[Effect; 1]>::try_from(all(conn)).expect("one effect");
    effect
}

/// Lets everything that waits for its time become due.
pub fn pass<C: Store>(conn: &mut C, time: Duration) {
    inbox::testing::pass_time(conn, BILLING, time).expect("passes");
}

/// An outcome that nobody knows.
#[must_use]
pub fn lost() -> CallFailure {
    CallFailure::unknown("the connection broke")
}

/// The error that must be there.
///
/// # Panics
/// When there is none.
#[track_caller]
pub fn failed<R: std::fmt::Debug>(result: Result<R, EffectError>) -> EffectError {
    result.expect_err("no result")
}

/// What a consumer of another name has.
#[must_use]
pub fn of_consumer<C: Store>(database: &Database, consumer: &str, id: &str) -> Effects {
    Effects::new(C::pool(database), Consumer(consumer), &operation(id))
}

/// Runs the first attempt up to its call, lets its lease pass, does `meanwhile`, and lets it end with `end`.
///
/// # Errors
/// What the first attempt brought.
pub async fn overtaken<C: Store>(
    database: &Database,
    effects: &Effects,
    end: Result<u32, CallFailure>,
    meanwhile: impl AsyncFnOnce(),
) -> Result<u32, EffectError> {
    let (entered, go) = (Semaphore::new(0), Semaphore::new(0));
    let zombie = effects.effect(CHARGE).repeat_safe().once(async |_| {
        entered.add_permits(1);
        go.acquire().await.expect("open").forget();
        end
    });
    let others = async {
        entered.acquire().await.expect("open").forget();
        pass(&mut C::connection(database), Duration::from_secs(3600));
        meanwhile().await;
        go.add_permits(1);
    };
    tokio::join!(zombie, others).0
}

/// The effect under this policy.
fn under(effects: &Effects, policy: Policy) -> inbox::effect::Effect<'_> {
    let effect = effects.effect(CHARGE);
    match policy {
        Policy::RepeatSafe => effect.repeat_safe(),
        Policy::Ask => effect.reconciled(),
        Policy::Review => effect.review(),
    }
}

/// Wants the effect under this policy, and a call that is made gets no answer. The error.
pub async fn lose(effects: &Effects, provider: &Provider, policy: Policy) -> EffectError {
    let call = |key| provider.answers(key, Err::<u32, _>(lost()));
    failed(under(effects, policy).once(call).await)
}

/// Leaves a call without a word, as a process that is killed.
///
/// # Panics
/// When the call ends.
pub async fn die(effects: &Effects, policy: Policy) {
    let entered = Semaphore::new(0);
    let dying = under(effects, policy).once(async |_| {
        entered.add_permits(1);
        std::future::pending::<Result<u32, _>>().await
    });
    tokio::select! {
        _ = dying => panic!("hangs"),
        permit = entered.acquire() => permit.expect("open").forget(),
    }
}
