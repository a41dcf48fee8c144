//! Calls to the outside world, each recorded before it is made and after.
//!
//! A transaction cannot hold an e-mail, a charge or a parcel. What can be held is the *intent*, committed before the
//! call under a key that never changes, and the *result*, committed after it. Between the two lies a moment in which
//! a crash or a timeout leaves an effect unknown: it may have been performed or not. Nothing here guesses. What may
//! be done then depends on the provider, and is said when the effect is declared:
//!
//! | The provider … | declare | an unknown effect … |
//! |---|---|---|
//! | performs one key once and repeats its answer | [`repeat_safe`](Effect::repeat_safe) | is called again with the same key |
//! | can be asked about a key | [`ask`](Effect::ask), [`reconciled`](Effect::reconciled) | is called again only where the provider says that it was not done |
//! | neither | nothing: [`review`](Effect::review) | waits for a person |
//!
//! In a handler's `prepare` the effects come from the context; its retries get the stored result instead of a second
//! call. Anywhere else, in an HTTP handler or a program of its own, they come from [`Effects::new`]:
//!
//! ```
//! use inbox::Consumer;
//! use inbox::effect::{CallFailure, Compensated, Effects};
//! use message::OperationKey;
//!
//! # use diesel::SqliteConnection;
//! # let file = std::env::temp_dir().join(format!("counterfoil-effect-doc-{}.db", std::process::id()));
//! # let url = file.display().to_string();
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! let db = db::Db::<SqliteConnection>::connect(&url, db::Settings::default()).await?;
//! # db.call(|conn| migrations::run(conn)).await?;
//! let operation = OperationKey::new("order.placed", "order_456")?;
//! let effects = Effects::new(db, Consumer("checkout"), &operation);
//! let mut sent = 0;
//! for _ in 0..3 {
//!     let receipt: String = effects
//!         .effect("confirmation-email")
//!         .repeat_safe()
//!         .once(|key| {
//!             sent += 1;
//!             // … `http.post(url).header("Idempotency-Key", key.to_string())…` …
//!             async move { Ok(format!("accepted as {key}")) }
//!         })
//!         .await?;
//!     assert_eq!(receipt, format!("accepted as {}", effects.key("confirmation-email")));
//! }
//! assert_eq!(sent, 1);
//!
//! // A refusal is stored too, and nobody asks again.
//! for _ in 0..2 {
//!     let charge = effects.effect("charge").once(|_key| async {
//!         Err::<u32, _>(CallFailure::refused("the card was declined"))
//!     });
//!     assert!(charge.await.is_err_and(|error| error.to_string().contains("declined")));
//! }
//!
//! // What was done is undone once, whoever calls for it and how often; what nobody had done is called off.
//! for effect in ["confirmation-email", "confirmation-email", "parcel"] {
//!     let undone = effects.effect(effect).repeat_safe().compensate(|key, receipt: String| async move {
//!         Ok(format!("{receipt}, withdrawn as {key}"))
//!     });
//!     match undone.await? {
//!         Compensated::Undone(told) => assert!(told.contains(", withdrawn as ")),
//!         other => assert_eq!((effect, other), ("parcel", Compensated::CalledOff)),
//!     }
//! }
//! # for end in ["", "-wal", "-shm"] { let _ = std::fs::remove_file(format!("{url}{end}")); }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What is not promised: that an effect happens once at a provider that neither honours keys nor can be asked (an
//! unknown one is never repeated by itself, and a person can be wrong); that a provider's answer is true; and that a
//! request, once sent, takes effect within [`Settings::grace`].

pub mod admin;
mod backend;
mod call;
mod compensate;
#[expect(clippy::module_inception, reason = "one effect, in the module about them")]
mod effect;
mod effects;
mod ending;
mod error;
mod held;
mod intent;
mod json;
mod key;
mod ledger;
mod one;
mod reconcile;
mod settings;
mod state;

pub use call::{Answer, CallFailure};
pub use compensate::Compensated;
pub use effect::Effect;
pub use effects::Effects;
pub use ending::Ending;
pub use error::EffectError;
pub use key::ProviderKey;
pub use reconcile::{Question, Reconciled, Reconciler};
pub use settings::Settings;
pub use state::{Policy, State};

pub(crate) use backend::EffectBackend;
pub(crate) use call::CallEnded;
pub(crate) use effects::Shared;
pub(crate) use error::{Course, course_in};
pub(crate) use held::Held;
pub(crate) use ledger::{LookedAfter, change, wake};
pub(crate) use reconcile::{Askers, asker};

/// What a question or a call can fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
