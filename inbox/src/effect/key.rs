use std::fmt;

use message::OperationKey;
use uuid::Uuid;

use crate::Consumer;

/// The namespace of provider keys. Never changes: a key given out must be found again.
const NAMESPACE: Uuid = Uuid::from_u128(0x7f1d_3c52_9a64_4e0b_8f2e_b7c5_d0a1_6e93);

/// What a provider is given to tell the effect from others: the same on every attempt, in every process and after
/// any restart. Send it as the provider's idempotency key, or as a reference that it can be asked for.
///
/// A UUID (version 5) of consumer, operation and effect name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProviderKey(Uuid);

impl ProviderKey {
    /// The key of an effect.
    #[must_use]
    pub fn of(consumer: Consumer<'_>, operation: &OperationKey, effect: &str) -> Self {
        let mut name = Vec::new();
        // Each part with its length, so that no two splits of the same bytes are alike.
        for part in [consumer.0, operation.scope(), operation.id(), effect] {
            name.extend_from_slice(&(part.len() as u64).to_be_bytes());
            name.extend_from_slice(part.as_bytes());
        }
        Self(Uuid::new_v5(&NAMESPACE, &name))
    }

    /// As a UUID.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    pub(crate) fn from_stored(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

/// As in `0f3c7a52-…`: 36 characters.
impl fmt::Display for ProviderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ProviderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(consumer: &str, scope: &str, id: &str, effect: &str) -> ProviderKey {
        let operation = OperationKey::new(scope, id).expect("valid");
        ProviderKey::of(Consumer(consumer), &operation, effect)
    }

    #[test]
    fn a_key_is_the_same_for_ever() {
        let known = key("billing", "payment.succeeded", "pay_123", "confirmation-email");
        assert_eq!(known.to_string(), KNOWN);
        assert_eq!(ProviderKey::from_stored(KNOWN), Some(known));
    }

    /// Stored by providers: when this test fails the code is wrong.
    const KNOWN: &str = "cb4f1863-da04-565e-879d-86807cbe2c7e";

    #[test]
    fn each_name_counts_and_no_split_of_them_makes_two_keys_equal() {
        let one = key("c", "s", "o", "e");
        for other in [
            key("d", "s", "o", "e"),
            key("c", "t", "o", "e"),
            key("c", "s", "p", "e"),
            key("c", "s", "o", "f"),
        ] {
            assert_ne!(one, other);
        }
        assert_ne!(key("c", "ss", "o", "e"), key("cs", "s", "o", "e"));
    }
}
