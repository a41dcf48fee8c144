use std::fmt;

/// The states or the events of a machine: a closed set, each with the name under which it is stored.
/// [`labels!`](crate::transition::labels) writes it for an enum.
pub trait Label: Copy + Eq + fmt::Debug + Send + Sync + 'static {
    /// Every value, in the order in which diagrams show them.
    const ALL: &'static [Self];

    /// Its name, stored for ever: 1 to 255 bytes, no control characters. Two values never share one.
    fn name(self) -> &'static str;

    /// The value of a stored name.
    ///
    /// # Errors
    /// [`UnknownLabel`] where no value has it.
    fn named(name: &str) -> Result<Self, UnknownLabel> {
        let found = Self::ALL.iter().copied().find(|label| label.name() == name);
        found.ok_or_else(|| UnknownLabel { name: name.to_owned() })
    }
}

/// A stored name that this build does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is stored and this build knows no such name; run a release that knows it, or correct the row"
)]
pub struct UnknownLabel {
    /// The name.
    pub name: String,
}

/// Declares enums whose values are [`Label`]s. Names are written out, because what is stored must
/// survive a renamed variant.
///
/// ```
/// use inbox::transition::{Label, labels};
///
/// labels! {
///     /// Where an order stands.
///     pub enum OrderState { Pending = "pending", Confirmed = "confirmed" }
///
///     enum OrderEvent { Confirm = "order.confirmed" }
/// }
/// assert_eq!(OrderState::Confirmed.name(), "confirmed");
/// assert_eq!(OrderState::named("pending"), Ok(OrderState::Pending));
/// assert_eq!(OrderEvent::ALL, [OrderEvent::Confirm]);
/// ```
#[macro_export]
#[doc(hidden)]
macro_rules! __transition_labels {
    ($(
        $(#[$meta:meta])*
        $visibility:vis enum $label:ident {
            $($(#[$about:meta])* $variant:ident = $name:literal),+ $(,)?
        }
    )+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $visibility enum $label { $($(#[$about])* $variant),+ }

        impl $crate::transition::Label for $label {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    )+};
}
