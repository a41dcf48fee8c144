use std::time::Duration;

use lapin::ErrorKind;
use lapin::protocol::AMQPErrorKind;

use crate::{Poison, Refusal, Unavailable, Verdict};

const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;

/// The broker closed a channel and kept the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChannelClosed {
    /// The AMQP reply code, where the client still knows it.
    pub(super) code: Option<u16>,
    /// What the broker said.
    pub(super) text: String,
}

impl ChannelClosed {
    pub(super) fn is_not_found(&self) -> bool {
        self.code == Some(NOT_FOUND)
    }

    pub(super) fn is_mismatch(&self) -> bool {
        self.code == Some(PRECONDITION_FAILED)
    }

    /// What it means for the one message that was on the channel.
    pub(super) fn verdict(&self) -> Verdict {
        let text = self.text.clone();
        match self.code {
            Some(NOT_FOUND) => Verdict::Refused(Refusal::ExchangeMissing { text }),
            Some(ACCESS_REFUSED) => Verdict::Refused(Refusal::AccessRefused { text }),
            Some(PRECONDITION_FAILED) if text.contains("message size") => {
                Verdict::Poison(Poison::TooLarge { text })
            }
            _ => Verdict::Refused(Refusal::Other { text }),
        }
    }
}

/// How far an error of the client reaches.
#[derive(Debug)]
pub(super) enum Reach {
    /// One channel. The connection is good.
    Channel(ChannelClosed),
    /// The connection.
    Connection(lapin::Error),
}

/// Tells the two apart. `connected` is the state of the connection at the time.
pub(super) fn reach(error: lapin::Error, connected: bool) -> Reach {
    match error.kind() {
        ErrorKind::ProtocolError(amqp) if matches!(amqp.kind(), AMQPErrorKind::Soft(_)) => {
            Reach::Channel(ChannelClosed {
                code: Some(amqp.get_id()),
                text: amqp.get_message().to_string(),
            })
        }
        ErrorKind::InvalidChannelState(..)
        | ErrorKind::InvalidChannel(_)
        | ErrorKind::ChannelsLimitReached
            if connected =>
        {
            Reach::Channel(ChannelClosed { code: None, text: error.to_string() })
        }
        _ => Reach::Connection(error),
    }
}

/// Prefers the error that says why over the ones that merely follow from it. A refused message shows
/// as a channel error first; the client can then lose the connection over it (see `lane`).
pub(super) fn more_telling(known: Option<lapin::Error>, new: lapin::Error) -> lapin::Error {
    let rank = |error: &lapin::Error| {
        (error.is_amqp_soft_error(), error.is_amqp_error(), error.is_io_error())
    };
    match known {
        Some(known) if rank(&known) >= rank(&new) => known,
        _ => new,
    }
}

pub(super) fn lost(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Unavailable {
    Unavailable::Lost { source: error.into() }
}

/// A broker request with our own deadline: the client has none, and some requests never resolve.
pub(super) async fn within<T>(
    step: &'static str,
    after: Duration,
    request: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<Result<T, lapin::Error>, Unavailable> {
    tokio::time::timeout(after, request).await.map_err(|_| Unavailable::Timeout { step, after })
}

#[cfg(test)]
mod tests {
    use lapin::protocol::{AMQPError, AMQPHardError, AMQPSoftError};

    use super::*;

    fn closed(code: u16, text: &str) -> ChannelClosed {
        ChannelClosed { code: Some(code), text: text.to_owned() }
    }

    #[test]
    fn each_reply_code_has_its_verdict() {
        let text = "PRECONDITION_FAILED - message size 9 is larger than configured max size 8";
        assert!(matches!(closed(406, text).verdict(), Verdict::Poison(Poison::TooLarge { .. })));
        assert!(matches!(
            closed(406, "invalid message").verdict(),
            Verdict::Refused(Refusal::Other { .. })
        ));
        assert!(matches!(
            closed(404, "").verdict(),
            Verdict::Refused(Refusal::ExchangeMissing { .. })
        ));
        assert!(matches!(
            closed(403, "").verdict(),
            Verdict::Refused(Refusal::AccessRefused { .. })
        ));
    }

    #[test]
    fn what_the_broker_said_about_the_message_outranks_what_followed() {
        let amqp = |kind: AMQPErrorKind, text: &str| {
            lapin::Error::from(ErrorKind::ProtocolError(AMQPError::new(kind, text.into())))
        };
        let soft = amqp(AMQPSoftError::NOTFOUND.into(), "no exchange");
        let hard = amqp(AMQPHardError::CHANNELERROR.into(), "expected 'channel.open'");
        let io = lapin::Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionAborted));
        let state = lapin::Error::from(ErrorKind::InvalidChannel(3));
        for order in [[&soft, &hard, &io, &state], [&state, &io, &hard, &soft]] {
            let told =
                order.into_iter().fold(None, |known, new| Some(more_telling(known, new.clone())));
            assert!(
                matches!(reach(told.expect("one"), false), Reach::Channel(closed) if closed.is_not_found())
            );
        }
    }

    #[test]
    fn a_channel_state_error_is_the_connections_fault_once_that_is_gone() {
        let error = || lapin::Error::from(ErrorKind::InvalidChannel(3));
        assert!(matches!(reach(error(), true), Reach::Channel(ChannelClosed { code: None, .. })));
        assert!(matches!(reach(error(), false), Reach::Connection(_)));
    }
}
