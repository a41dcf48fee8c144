use crate::{ParkedState, Reason};

/// Which parked messages are meant. What is `None` does not restrict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// These numbers.
    pub ids: Option<Vec<i64>>,
    /// Of this consumer.
    pub consumer: Option<String>,
    /// In this state.
    pub state: Option<ParkedState>,
    /// Parked for this reason.
    pub reason: Option<Reason>,
    /// Of this ordering key.
    pub key: Option<String>,
    /// Only with a greater number; the last one's pages on. Default 0.
    pub after: i64,
    /// At most so many, in order of their numbers. Default 1,000.
    pub limit: u32,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            ids: None,
            consumer: None,
            state: None,
            reason: None,
            key: None,
            after: 0,
            limit: 1_000,
        }
    }
}

impl Selection {
    /// One message.
    pub(crate) fn one(id: i64) -> Self {
        Self { ids: Some(vec![id]), limit: 1, ..Self::default() }
    }

    /// The numbers as the database reads them.
    pub(crate) fn ids_json(&self) -> Option<String> {
        self.ids.as_deref().map(json_of)
    }
}

/// Numbers as a JSON array: arrays of values are not to be had on both backends.
pub(crate) fn json_of(ids: &[i64]) -> String {
    let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
    format!("[{}]", ids.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_a_json_array() {
        assert_eq!(Selection::one(-7).ids_json().as_deref(), Some("[-7]"));
        assert_eq!(json_of(&[]), "[]");
        assert_eq!(json_of(&[1, 20]), "[1,20]");
    }
}
