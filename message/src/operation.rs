use std::fmt;

use crate::limits::{InvalidMessage, check_name};

/// The business operation a message stands for: a scope and an id within it.
///
/// `payment.succeeded` of `pay_123` and `payment.refunded` of `pay_123` are two operations, which
/// is why the scope defaults to the event's kind. Scope and id are kept apart (and stored in two
/// columns) so that no choice of characters in one can imitate the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationKey {
    scope: String,
    id: String,
}

impl OperationKey {
    /// A key from its two parts.
    ///
    /// # Errors
    /// [`InvalidMessage`] when a part is empty, longer than 255 bytes or holds control characters.
    pub fn new(scope: impl Into<String>, id: impl Into<String>) -> Result<Self, InvalidMessage> {
        let (scope, id) = (scope.into(), id.into());
        check_name("operation scope", &scope)?;
        check_name("operation", &id)?;
        Ok(Self { scope, id })
    }

    pub(crate) fn unchecked(scope: &str, id: &str) -> Self {
        Self { scope: scope.to_owned(), id: id.to_owned() }
    }

    /// What kind of operation it is; by default the event's kind.
    #[must_use]
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// The business id within the scope, for example `pay_123`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// `scope/id`, for people; not a storage format.
impl fmt::Display for OperationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.scope, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_inside_a_part_does_not_make_two_keys_equal() {
        let left = OperationKey::new("a/b", "c").expect("valid");
        let right = OperationKey::new("a", "b/c").expect("valid");
        assert_eq!(left.to_string(), right.to_string());
        assert_ne!(left, right);
    }

    #[test]
    fn both_parts_are_checked() {
        assert!(OperationKey::new("", "c").is_err());
        assert!(OperationKey::new("a", "").is_err());
        assert!(OperationKey::new("a", "b\0").is_err());
        assert!(OperationKey::new("a", "b".repeat(256)).is_err());
    }
}
