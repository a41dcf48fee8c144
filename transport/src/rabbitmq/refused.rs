use lapin::ErrorKind;

use super::address::Address;
#[cfg(feature = "tls")]
use super::tls::{Refusal, refusal};
use crate::Unavailable;

/// What it means that a connection did not come about. `secure` tells whether TLS had been agreed on by
/// then.
///
/// The broker says no to a login in several ways, some of them after closing the socket.
pub(super) fn refused(address: &Address, secure: bool, error: lapin::Error) -> Unavailable {
    match error.kind() {
        ErrorKind::ProtocolError(amqp) if matches!(amqp.get_id(), 403 | 530) => {
            Unavailable::LoginRefused {
                address: address.host(),
                user: address.user().to_owned(),
                vhost: address.vhost().to_owned(),
                reason: amqp.get_message().to_string(),
            }
        }
        ErrorKind::AuthProviderError(reason) => Unavailable::BadSettings { reason: reason.clone() },
        ErrorKind::InvalidProtocolVersion(version) => Unavailable::BadSettings {
            reason: format!(
                "the peer at {} speaks AMQP {version}, not 0-9-1; check the port",
                address.host()
            ),
        },
        #[cfg(feature = "tls")]
        ErrorKind::IOError(io) => match refusal(io) {
            Refusal::Settings(reason) => Unavailable::BadSettings { reason },
            Refusal::Final(reason) => Unavailable::Insecure { address: address.host(), reason },
            Refusal::Passing => unreachable(address, secure, error),
        },
        _ => unreachable(address, secure, error),
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "closed after the TLS handshake ({0}); if that stays so, it may want a certificate from us: set client_cert_file and client_key_file"
)]
struct ClosedAfterHandshake(#[source] lapin::Error);

fn unreachable(address: &Address, secure: bool, error: lapin::Error) -> Unavailable {
    // A certificate that was not shown is missed after the handshake, and the broker's word on it can
    // be lost with the connection.
    let source = if secure && !address.tls().identifies_us() {
        ClosedAfterHandshake(error).into()
    } else {
        error.into()
    };
    Unavailable::Unreachable { address: address.host(), source }
}
