use serde::Serialize;

use super::{Answer, BoxError};

/// A result as it is stored; null as nothing.
pub(super) fn written<R: Serialize>(result: &R) -> Result<Option<String>, serde_json::Error> {
    let json = serde_json::to_string(result)?;
    Ok((json != "null").then_some(json))
}

/// What a provider said, as the ledger takes it. What cannot be written down is asked for again, and goes to a person
/// in the end.
pub(super) fn told<R: Serialize>(answer: Result<Answer<R>, BoxError>) -> Answer<Option<String>> {
    match answer {
        Ok(Answer::Done(result)) => match written(&result) {
            Ok(json) => Answer::Done(json),
            Err(error) => {
                tracing::error!(%error, "a provider's answer cannot be written as JSON");
                Answer::StillUnknown
            }
        },
        Ok(Answer::NotDone) => Answer::NotDone,
        Ok(Answer::StillUnknown) => Answer::StillUnknown,
        Err(error) => {
            tracing::debug!(%error, "a provider could not be asked");
            Answer::StillUnknown
        }
    }
}
