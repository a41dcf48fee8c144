use crate::headers::Headers;

/// Longest name in bytes (kind, operation, ordering key, exchange, routing key, content type):
/// what an AMQP short string can hold. The client library panics above it, so it is refused here
/// and by CHECK constraints.
pub const MAX_NAME_BYTES: usize = 255;

/// Largest set of headers, as JSON text. All headers must fit one AMQP frame (131,072 bytes by
/// default); a larger frame closes the whole connection, not just the channel.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;

/// Limits that can be configured.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Largest payload in bytes. Default 8 MiB. Raise it only together with the broker's
    /// `max_message_size` (16 MiB since RabbitMQ 4.0) and the table's CHECK constraint.
    pub max_payload_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_payload_bytes: 8 * 1024 * 1024 }
    }
}

/// Why a message cannot be sent. Found before anything is stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMessage {
    /// A name is empty.
    #[error("{field} is empty; give it 1 to {MAX_NAME_BYTES} bytes")]
    EmptyName {
        /// Which name.
        field: &'static str,
    },
    /// A name does not fit an AMQP short string.
    #[error(
        "{field} has {bytes} bytes, more than {MAX_NAME_BYTES}; shorten it (a hash of a long key is a key)"
    )]
    NameTooLong {
        /// Which name.
        field: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// A name holds NUL, a line break or another control character.
    #[error("{field} holds the control character {character:?}; remove it")]
    ControlCharacter {
        /// Which name.
        field: &'static str,
        /// The first such character.
        character: char,
    },
    /// A header value holds NUL, which PostgreSQL cannot store.
    #[error("header {name:?} holds a NUL byte; remove it or move the value into the payload")]
    NulInHeader {
        /// The header's name.
        name: String,
    },
    /// A header name begins with the prefix that is kept for this library.
    #[error(
        "header {name:?} uses the reserved prefix `counterfoil-`; use the named method or another prefix"
    )]
    ReservedHeader {
        /// The header's name.
        name: String,
    },
    /// The headers do not fit one frame together.
    #[error(
        "headers take {bytes} bytes, more than {MAX_HEADER_BYTES}; move large values into the payload"
    )]
    HeadersTooLarge {
        /// Their size as JSON.
        bytes: usize,
    },
    /// The payload is over the configured maximum.
    #[error(
        "payload has {bytes} bytes, more than {limit}; store it elsewhere and send a reference, or raise `Limits::max_payload_bytes`, the table's CHECK and the broker's max_message_size together"
    )]
    PayloadTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit in force.
        limit: usize,
    },
    /// The event could not be written as JSON.
    #[error("the event cannot be written as JSON: {reason}")]
    Unserializable {
        /// What the encoder said.
        reason: String,
    },
    /// A payload declared as JSON is not.
    #[error(
        "the payload is declared as JSON and is not: {reason}; fix it or set another content type"
    )]
    NotJson {
        /// What the decoder said.
        reason: String,
    },
    /// A trace parent that is not in W3C form.
    #[error(
        "{value:?} is not a W3C traceparent (version-traceid-parentid-flags in lower-case hexadecimal)"
    )]
    BadTraceParent {
        /// The refused text.
        value: String,
    },
}

/// Checks one name: 1 to 255 bytes, no control characters.
///
/// # Errors
/// [`InvalidMessage`] naming `field`.
pub fn check_name(field: &'static str, value: &str) -> Result<(), InvalidMessage> {
    if value.is_empty() {
        return Err(InvalidMessage::EmptyName { field });
    }
    if value.len() > MAX_NAME_BYTES {
        return Err(InvalidMessage::NameTooLong { field, bytes: value.len() });
    }
    match value.chars().find(|c| c.is_control()) {
        Some(character) => Err(InvalidMessage::ControlCharacter { field, character }),
        None => Ok(()),
    }
}

pub(crate) fn check_headers(headers: &Headers) -> Result<(), InvalidMessage> {
    for (name, value) in headers.iter() {
        check_name("header name", name)?;
        if value.contains('\0') {
            return Err(InvalidMessage::NulInHeader { name: name.to_owned() });
        }
    }
    // PostgreSQL's text form of jsonb puts a blank behind each colon and comma; its CHECK counts them.
    let bytes = headers.to_json().len() + 2 * headers.len();
    if bytes > MAX_HEADER_BYTES {
        return Err(InvalidMessage::HeadersTooLarge { bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_passes_and_one_byte_more_does_not() {
        assert_eq!(check_name("kind", &"k".repeat(255)), Ok(()));
        assert_eq!(
            check_name("kind", &"k".repeat(256)),
            Err(InvalidMessage::NameTooLong { field: "kind", bytes: 256 })
        );
        // Bytes count, not characters.
        assert!(check_name("kind", &"ü".repeat(128)).is_err());
    }

    #[test]
    fn names_that_would_reach_a_log_line_or_a_c_string_are_refused() {
        for bad in ["", "a\0", "a\nb", "a\r", "\u{85}"] {
            assert!(check_name("kind", bad).is_err(), "{bad:?}");
        }
    }
}
