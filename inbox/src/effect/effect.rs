use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use message::{Fingerprint, check_name};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::CallFailure;
use super::json::told;
use super::one::One;
use super::{Answer, BoxError, Compensated, EffectError, Effects, Ending, Policy, ProviderKey};

/// One effect of an operation.
#[must_use = "nothing is performed before `once`"]
pub struct Effect<'a> {
    effects: &'a Effects,
    name: &'a str,
    policy: Policy,
    ask: Option<Ask<'a>>,
    request: Option<Result<Fingerprint, serde_json::Error>>,
    deadline: Duration,
}

pub(super) type Ask<'a> =
    Box<dyn FnOnce(ProviderKey) -> BoxFuture<'a, Answer<Option<String>>> + Send + 'a>;

impl<'a> Effect<'a> {
    pub(super) fn new(effects: &'a Effects, name: &'a str) -> Self {
        Self {
            effects,
            name,
            policy: Policy::Review,
            ask: None,
            request: None,
            deadline: effects.shared.settings.deadline,
        }
    }

    /// The provider performs what it is asked for under one key once, and gives the first answer to every
    /// repetition: an unknown outcome is called again. Only where the provider documents it, and for no longer than
    /// it keeps keys.
    pub fn repeat_safe(mut self) -> Self {
        self.policy = Policy::RepeatSafe;
        self
    }

    /// The provider can be asked what became of a key. `ask` is called when an unknown outcome is met again and its
    /// time has come; an error or a panic of it is [`Answer::StillUnknown`]. An answer `NotDone` must hold for
    /// requests that are still under way, too: see [`Settings::grace`](super::Settings::grace).
    pub fn ask<R, F, Fut>(mut self, ask: F) -> Self
    where
        R: Serialize + Send + 'a,
        F: FnOnce(ProviderKey) -> Fut + Send + 'a,
        Fut: Future<Output = Result<Answer<R>, BoxError>> + Send + 'a,
    {
        self.policy = Policy::Ask;
        self.ask = Some(Box::new(move |key| ask(key).map(told).boxed()));
        self
    }

    /// The same, where only a [`Reconciler`](super::Reconciler) asks.
    pub fn reconciled(mut self) -> Self {
        self.policy = Policy::Ask;
        self
    }

    /// Nothing is known about the provider: a person decides about an unknown outcome. The default.
    pub fn review(mut self) -> Self {
        self.policy = Policy::Review;
        self
    }

    /// What is asked for. Another request under the same name is [`EffectError::Conflict`], unless the one before was
    /// certainly not performed. Without it the message's own fingerprint counts, and nothing outside of an inbox and
    /// for [`compensate`](Self::compensate): whichever message undoes an effect, it is the same undoing.
    pub fn request(mut self, request: &(impl Serialize + ?Sized)) -> Self {
        let value = serde_json::to_value(request);
        self.request = Some(value.map(|value| Fingerprint::of_json(&value, &[])));
        self
    }

    /// Sets [`Settings::deadline`](super::Settings::deadline) for this one; in an inbox no more than half of its
    /// handler's, either.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(self.effects.shared.settings.longest);
        self
    }

    /// Performs it once: calls `call` unless it was performed, or may have been and it is not safe to repeat. The
    /// intent is committed before the call, the result after it. Who comes again gets the stored result.
    ///
    /// Dropping the future in the call leaves the outcome unknown, as a crash does.
    ///
    /// # Errors
    /// [`EffectError`]; in an inbox hand it on with `?`.
    pub async fn once<R, F, Fut>(self, call: F) -> Result<R, EffectError>
    where
        R: Serialize + DeserializeOwned + Send,
        F: FnOnce(ProviderKey) -> Fut + Send,
        Fut: Future<Output = Result<R, CallFailure>> + Send,
    {
        let (name, otherwise) = (self.name.to_owned(), self.effects.fingerprint);
        let (one, ask) = self.named(name, otherwise)?;
        one.perform(ask, call).await
    }

    /// Undoes it, once: calls `call` with what it brought. That is an effect of its own, `NAME/compensation`, with a
    /// key of its own, and everything said here before is about it.
    ///
    /// An effect belongs to the operation that performed it. Where another message calls for its undoing, take it
    /// from [`Effects::of`] that operation: from this message's own it is one that nobody has performed, and
    /// [`Compensated::CalledOff`].
    ///
    /// What was never performed is refused to everybody from then on, as called off.
    ///
    /// Afterwards [`once`](Self::once) still brings what it brought the first time: a handler that compensates does
    /// not go on with it.
    ///
    /// # Errors
    /// [`EffectError`]; [`EffectError::NotKnown`] where it may have been performed. A message then comes again when
    /// it is decided.
    pub async fn compensate<D, R, F, Fut>(self, call: F) -> Result<Compensated<R>, EffectError>
    where
        D: DeserializeOwned + Send,
        R: Serialize + DeserializeOwned + Send,
        F: FnOnce(ProviderKey, D) -> Fut + Send,
        Fut: Future<Output = Result<R, CallFailure>> + Send,
    {
        let (effects, name) = (self.effects, self.name);
        check_name("effect", name)?;
        let otherwise = Fingerprint::of_bytes(&[]);
        let (one, ask) = self.named(format!("{name}/compensation"), otherwise)?;
        let done = match super::compensate::undoable::<D, R>(effects, name).await? {
            Ok(done) => done,
            Err(nothing) => {
                let ending = match nothing {
                    Compensated::CalledOff => Ending::CalledOff,
                    Compensated::Refused | Compensated::Undone(_) => Ending::Refused,
                };
                effects.shared.telemetry.ended(ending);
                return Ok(nothing);
            }
        };
        one.perform(ask, |key| call(key, done)).await.map(Compensated::Undone)
    }

    fn named(
        self,
        name: String,
        otherwise: Fingerprint,
    ) -> Result<(One<'a>, Option<Ask<'a>>), EffectError> {
        check_name("effect", &name)?;
        let fingerprint = match self.request.unwrap_or(Ok(otherwise)) {
            Ok(fingerprint) => fingerprint,
            Err(source) => {
                return Err(EffectError::Unwritable { effect: name, what: "request", source });
            }
        };
        let Self { effects, policy, ask, deadline, .. } = self;
        Ok((One { effects, name, policy, fingerprint, deadline }, ask))
    }
}

impl std::fmt::Debug for Effect<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Effect")
            .field("name", &self.name)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
