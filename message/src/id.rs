use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The identity of one event record: a UUIDv7 minted by the producer.
///
/// Database sequence numbers are not used as identity because a restored or failed-over database
/// hands out the same numbers again. Ids of version 7 sort by time, which keeps the unique index
/// on them append-mostly; ids of any other version are accepted from foreign producers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(Uuid);

impl MessageId {
    /// Mints a new id from the current time and randomness.
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id as a UUID, as stored in PostgreSQL.
    #[must_use]
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

impl Default for MessageId {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Uuid> for MessageId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl From<MessageId> for Uuid {
    fn from(id: MessageId) -> Self {
        id.0
    }
}

impl FromStr for MessageId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_ids_are_version_seven_and_sort_by_time() {
        let ids: Vec<MessageId> = (0..1_000).map(|_| MessageId::new()).collect();
        assert!(ids.iter().all(|id| id.as_uuid().get_version_num() == 7));
        assert!(ids.is_sorted());
    }

    #[test]
    fn text_round_trips() {
        let id = MessageId::new();
        assert_eq!(id.to_string().parse::<MessageId>().ok(), Some(id));
        assert!("not-a-uuid".parse::<MessageId>().is_err());
    }
}
