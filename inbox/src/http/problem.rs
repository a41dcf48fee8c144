use std::fmt::Display;
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue, LINK, RETRY_AFTER};
use serde_json::json;

use super::RequestEnding;
use super::policy::Policy;
use super::reply::Reply;

/// Why a request got no answer of its handler, as RFC 9457 wants it said. Nothing in it comes from a stored
/// reply or an error of ours, nor from the request but for what is wrong with its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    MissingKey,
    BadKey(&'static str),
    TooLarge,
    UnsupportedMediaType,
    BadBody,
    Mismatch,
    InProgress,
    NotKept,
    Failed,
    /// The same, where the policy keeps it.
    Spent,
    /// The handler broke off outside a transaction.
    Interrupted,
    Unavailable,
    Unknown,
    /// A person has to find out what became of an effect.
    InReview,
    /// An effect was refused for good.
    Refused,
    /// The application is not as it has to be.
    Misconfigured,
}

impl Problem {
    /// How a request ends that gets it before it was looked up.
    pub(crate) const fn ending(self) -> RequestEnding {
        match self {
            Self::MissingKey => RequestEnding::MissingKey,
            Self::BadKey(_) => RequestEnding::BadKey,
            Self::TooLarge => RequestEnding::TooLarge,
            Self::UnsupportedMediaType | Self::BadBody => RequestEnding::BadBody,
            Self::Mismatch => RequestEnding::Mismatch,
            Self::InProgress => RequestEnding::InProgress,
            Self::NotKept => RequestEnding::NotKept,
            Self::Failed | Self::Spent => RequestEnding::Failed,
            Self::Interrupted => RequestEnding::Panicked,
            Self::Unavailable => RequestEnding::Unavailable,
            Self::Unknown | Self::InReview => RequestEnding::Unknown,
            Self::Refused => RequestEnding::Refused,
            Self::Misconfigured => RequestEnding::Misconfigured,
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::MissingKey | Self::BadKey(_) | Self::BadBody => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Mismatch | Self::Refused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::InProgress | Self::NotKept => StatusCode::CONFLICT,
            Self::Failed | Self::Spent | Self::Interrupted | Self::Misconfigured => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::Unavailable | Self::Unknown | Self::InReview => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The fragment of the published policy that explains it.
    const fn name(self) -> &'static str {
        match self {
            Self::MissingKey => "missing-key",
            Self::BadKey(_) => "bad-key",
            Self::TooLarge => "too-large",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::BadBody => "bad-body",
            Self::Mismatch => "mismatch",
            Self::InProgress => "in-progress",
            Self::NotKept => "reply-not-kept",
            Self::Failed => "failed",
            Self::Spent => "spent",
            Self::Interrupted => "interrupted",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown-outcome",
            Self::InReview => "in-review",
            Self::Refused => "refused",
            Self::Misconfigured => "misconfigured",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::MissingKey => "Idempotency-Key is missing",
            Self::BadKey(_) => "Idempotency-Key cannot be used",
            Self::TooLarge => "The request body is too large",
            Self::UnsupportedMediaType => "The request body is not JSON",
            Self::BadBody => "The request body cannot be read",
            Self::Mismatch => "Idempotency-Key was used for another request",
            Self::InProgress => "A request with this Idempotency-Key is in progress",
            Self::NotKept => "The reply to this Idempotency-Key was not kept",
            Self::Failed | Self::Spent => "The request failed",
            Self::Interrupted => "The request broke off",
            Self::Unavailable => "The request cannot be handled now",
            Self::Unknown => "The outcome of the request is not known",
            Self::InReview => "The outcome of the request is being looked up",
            Self::Refused => "The request was refused",
            Self::Misconfigured => "The service cannot handle this request",
        }
    }

    const fn detail(self) -> &'static str {
        match self {
            Self::MissingKey => {
                "Send a key of your own in quotes, one per operation, and the same one when you repeat it."
            }
            Self::BadKey(detail) => detail,
            Self::TooLarge => "Nothing was done.",
            Self::UnsupportedMediaType => "Nothing was done. Send application/json.",
            Self::BadBody => "Nothing was done. Correct the body; the key is still free.",
            Self::Mismatch => "Nothing was done. Use a new key for a new operation.",
            Self::InProgress => "Repeat the request with the same key after a while.",
            Self::NotKept => {
                "The first request with this key was carried out. Do not repeat it under another key; look up what it did."
            }
            Self::Failed => "Everything was undone. The request can be repeated with the same key.",
            Self::Spent => {
                "Everything was undone, and the key stands for this answer from now on. Use a new key to try again."
            }
            Self::Interrupted => {
                "A part of it may have been carried out. Find out how much before you repeat it."
            }
            Self::Unavailable => {
                "Nothing was done. Repeat the request with the same key after a while."
            }
            Self::Unknown => {
                "It may have been carried out. Repeat it with the same key, which finds out and does nothing twice."
            }
            Self::InReview => {
                "It may have been carried out, and a person finds out. Repeat it later with the same key; do not use another one."
            }
            Self::Refused => {
                "A provider said no. A part of the request may have been carried out before: find out before you try again with a new key."
            }
            Self::Misconfigured => {
                "Nothing was done. The service has to be put right before the request can be repeated."
            }
        }
    }

    pub(crate) fn reply(self, policy: &Policy) -> Reply {
        self.reply_after(policy, self.detail(), policy.retry_after)
    }

    /// The same with what is wrong with the body, in the words of whoever reads it, cut off where they repeat much
    /// of it.
    pub(crate) fn reply_over(self, policy: &Policy, fault: &dyn Display) -> Reply {
        let fault: String = fault.to_string().chars().take(200).collect();
        let detail = format!("{} It is: {fault}.", self.detail());
        self.reply_after(policy, &detail, policy.retry_after)
    }

    /// The same for a request that has reached the outside world, of which nobody may say that nothing was done.
    pub(crate) const fn beyond(self, reached: bool) -> Self {
        match self {
            Self::Failed | Self::Spent | Self::Unavailable if reached => Self::Unknown,
            other => other,
        }
    }

    /// The key's effect was asked for with another request, perhaps behind others of this one.
    pub(crate) fn reply_to_conflict(policy: &Policy) -> Reply {
        let detail = "The key was used for another request. A part of this one may have been carried out: find out before you \
                      send it again with a new key.";
        Self::Mismatch.reply_after(policy, detail, policy.retry_after)
    }

    pub(crate) fn reply_later(self, policy: &Policy, after: Duration) -> Reply {
        self.reply_after(policy, self.detail(), after.max(policy.retry_after))
    }

    fn reply_after(self, policy: &Policy, detail: &str, after: Duration) -> Reply {
        let kind = format!("{}#{}", policy.url, self.name());
        let status = self.status();
        let body = json!({
            "type": kind,
            "title": self.title(),
            "status": status.as_u16(),
            "detail": detail,
        });
        let mut reply = Reply::new(status)
            .with_header(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))
            .with_body(body.to_string());
        // The policy's check has seen that it fits.
        if let Ok(link) = HeaderValue::try_from(format!("<{kind}>; rel=\"describedby\"")) {
            reply = reply.with_header(LINK, link);
        }
        if matches!(self, Self::InProgress | Self::Unavailable | Self::Unknown | Self::InReview) {
            reply = reply.with_header(RETRY_AFTER, whole_seconds(after).into());
        }
        reply
    }
}

/// Retry-After knows no fractions; zero would say at once.
fn whole_seconds(pause: Duration) -> u64 {
    pause.as_secs() + u64::from(pause.subsec_nanos() > 0)
}
