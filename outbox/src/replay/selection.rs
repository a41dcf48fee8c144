use std::time::SystemTime;

use message::MessageId;
use serde::{Deserialize, Serialize};

use crate::admin::AdminError;
use crate::admin::order::name;

/// Which part of the history is meant. What is `None` does not restrict; what is given must all fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
// A restriction that this release does not know must not be passed over.
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// From this place in the log on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_seq: Option<i64>,
    /// Up to this place, included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_seq: Option<i64>,
    /// Stored at this time or later, by the database's clock.
    #[serde(skip_serializing_if = "Option::is_none", with = "micros")]
    pub since: Option<SystemTime>,
    /// Stored before this time.
    #[serde(skip_serializing_if = "Option::is_none", with = "micros")]
    pub until: Option<SystemTime>,
    /// Of one of these kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kinds: Option<Vec<String>>,
    /// With one of these ordering keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
    /// Of one of these operations, by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations: Option<Vec<String>>,
    /// These messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<MessageId>>,
}

/// Ids, kinds or keys in one selection: it is stored with the replay and bound with each read.
const MOST: usize = 10_000;

impl Selection {
    /// Refuses what can fit nothing, or could not be stored.
    pub(crate) fn check(&self) -> Result<(), AdminError> {
        let lists =
            [("kind", &self.kinds), ("ordering key", &self.keys), ("operation", &self.operations)];
        for (field, list) in lists {
            let Some(list) = list else { continue };
            size(field, list.len())?;
            list.iter().try_for_each(|value| name(field, value))?;
        }
        if let Some(ids) = &self.ids {
            size("message id", ids.len())?;
        }
        if let (Some(from), Some(to)) = (self.from_seq, self.to_seq)
            && from > to
        {
            return unusable("to_seq", to.to_string(), format!("it is before from_seq ({from})"));
        }
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since >= until
        {
            let reason = "it is not after the time given for since".to_owned();
            return unusable("until", format!("{until:?}"), reason);
        }
        Ok(())
    }

    /// As stored with the replay: a JSON object of what is given, times in microseconds since 1970.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Texts and numbers always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When it is no such object, or of a later release that can restrict more.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// The place behind which everything selected lies.
    pub(crate) fn start(&self) -> i64 {
        self.from_seq.map_or(0, |from| from.saturating_sub(1).max(0))
    }
}

fn size(field: &'static str, count: usize) -> Result<(), AdminError> {
    if (1..=MOST).contains(&count) {
        return Ok(());
    }
    let reason = format!("name 1 to {MOST}, or leave it out; split what is more");
    unusable(field, format!("{count} values"), reason)
}

fn unusable(field: &'static str, value: String, reason: String) -> Result<(), AdminError> {
    Err(AdminError::Unusable { field, value, reason })
}

mod micros {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::row::{micros_of, time_of};

    pub(super) fn serialize<S: Serializer>(
        at: &Option<SystemTime>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(micros_of).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        Ok(Option::<i64>::deserialize(from)?.map(time_of))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn everything() -> Selection {
        Selection {
            from_seq: Some(3),
            to_seq: Some(9),
            since: Some(UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456)),
            until: Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
            kinds: Some(vec!["a \"b\"".into()]),
            keys: Some(vec!["k".into()]),
            operations: Some(vec!["o".into()]),
            ids: Some(vec![MessageId::new()]),
        }
    }

    #[test]
    fn the_stored_form_reads_back_and_an_unknown_restriction_is_refused() {
        for selection in [everything(), Selection::default()] {
            let json = selection.to_json();
            assert_eq!(Selection::from_json(&json).expect("reads"), selection, "{json}");
        }
        assert_eq!(Selection::default().to_json(), "{}");
        assert!(Selection::from_json(r#"{"colour":"red"}"#).is_err());
    }

    #[test]
    fn what_fits_nothing_is_refused() {
        type Spoil = fn(&mut Selection);
        let cases: [Spoil; 5] = [
            |s| s.to_seq = Some(2),
            |s| s.until = s.since,
            |s| s.kinds = Some(Vec::new()),
            |s| s.keys = Some(vec!["a\nb".into()]),
            |s| s.ids = Some(vec![MessageId::new(); MOST + 1]),
        ];
        assert!(everything().check().is_ok());
        for spoil in cases {
            let mut selection = everything();
            spoil(&mut selection);
            assert!(matches!(selection.check(), Err(AdminError::Unusable { .. })), "{selection:?}");
        }
    }
}
