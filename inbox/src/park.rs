use std::borrow::Cow;
use std::time::UNIX_EPOCH;

use message::{Fingerprint, MAX_NAME_BYTES, OperationKey};

use crate::Consumer;
use crate::ending::Reason;
use crate::incoming::Incoming;
use crate::parking::{Next, Parking};

/// Longest detail kept, in bytes: enough for any error, and no payload copied into one.
const MAX_DETAIL_BYTES: usize = 4096;

/// Headers that the broker itself changes from one delivery of a message to the next.
const BROKER_HEADERS: [&str; 3] = ["x-delivery-count", "x-acquired-count", "x-death"];

/// A delivery in the form in which it is parked: the whole message, storable in any text column.
#[derive(Debug)]
pub struct NewParked<'a> {
    pub(crate) consumer: Consumer<'a>,
    pub(crate) reason: Reason,
    pub(crate) detail: String,
    pub(crate) next: Next,
    pub(crate) attempts: i32,
    pub(crate) ordering_key: Option<Cow<'a, str>>,
    pub(crate) digest: Fingerprint,
    /// Microseconds since 1970.
    pub(crate) made_at: Option<i64>,
    pub(crate) message_id: Option<Cow<'a, str>>,
    pub(crate) kind: Option<Cow<'a, str>>,
    pub(crate) operation: Option<&'a OperationKey>,
    pub(crate) exchange: Cow<'a, str>,
    pub(crate) routing_key: Cow<'a, str>,
    pub(crate) headers: String,
    pub(crate) content_type: Option<Cow<'a, str>>,
    pub(crate) payload: &'a [u8],
}

impl<'a> NewParked<'a> {
    pub(crate) fn new(
        consumer: Consumer<'a>,
        incoming: &'a Incoming,
        operation: Option<&'a OperationKey>,
        ordering_key: Option<&'a str>,
        parking: &Parking,
    ) -> Self {
        Self {
            consumer,
            reason: parking.reason,
            detail: detail(&parking.detail),
            next: parking.next,
            attempts: stored(parking.attempts),
            ordering_key: ordering_key.map(clean),
            digest: digest(incoming),
            made_at: made_at(incoming),
            message_id: incoming.message_id.as_deref().map(clean),
            kind: incoming.kind.as_deref().map(clean),
            operation,
            exchange: clean(&incoming.exchange),
            routing_key: clean(&incoming.routing_key),
            headers: headers(incoming),
            content_type: incoming.content_type.as_deref().map(clean),
            payload: &incoming.payload,
        }
    }
}

/// A detail in a form that every store can hold.
pub(crate) fn detail(text: &str) -> String {
    shortened(&without_nul(text), MAX_DETAIL_BYTES).into_owned()
}

/// A count in a form that every store can hold.
pub(crate) fn stored(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// A name in a form that every store can hold: NUL characters become `␀`, and one longer than 255
/// bytes ends in `…`.
pub(crate) fn clean(name: &str) -> Cow<'_, str> {
    match without_nul(name) {
        Cow::Borrowed(name) => shortened(name, MAX_NAME_BYTES),
        Cow::Owned(name) => Cow::Owned(shortened(&name, MAX_NAME_BYTES).into_owned()),
    }
}

fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{2400}"))
    } else {
        Cow::Borrowed(text)
    }
}

fn shortened(text: &str, limit: usize) -> Cow<'_, str> {
    const ELLIPSIS: char = '…';
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    let most = limit - ELLIPSIS.len_utf8();
    let end = (0..=most).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    Cow::Owned(format!("{}{ELLIPSIS}", &text[..end]))
}

fn headers(incoming: &Incoming) -> String {
    let nul =
        incoming.headers.iter().any(|(name, value)| name.contains('\0') || value.contains('\0'));
    if nul {
        let cleaned = incoming
            .headers
            .iter()
            .map(|(name, value)| (without_nul(name).into_owned(), without_nul(value).into_owned()));
        cleaned.collect::<message::Headers>().to_json()
    } else {
        incoming.headers.to_json()
    }
}

fn made_at(incoming: &Incoming) -> Option<i64> {
    let since = incoming.timestamp?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_micros()).ok()
}

/// The identity of a parked message: everything in it that a redelivery repeats. The broker's own id
/// of it is not among that, and a foreign producer's may be missing or not unique.
pub(crate) fn digest(incoming: &Incoming) -> Fingerprint {
    let mut bytes = Vec::new();
    // Each part with its length, so that no two splits of the same bytes are alike.
    let mut part = |content: &[u8]| {
        bytes.extend_from_slice(&(content.len() as u64).to_be_bytes());
        bytes.extend_from_slice(content);
    };
    for property in [&incoming.message_id, &incoming.kind, &incoming.content_type] {
        part(&[u8::from(property.is_some())]);
        part(property.as_deref().unwrap_or_default().as_bytes());
    }
    part(&made_at(incoming).map(i64::to_be_bytes).unwrap_or_default());
    part(incoming.exchange.as_bytes());
    part(incoming.routing_key.as_bytes());
    for (name, value) in incoming.headers.iter().filter(|(name, _)| !BROKER_HEADERS.contains(name))
    {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    part(Fingerprint::of_bytes(&incoming.payload).as_bytes());
    Fingerprint::of_bytes(&bytes)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use message::Headers;

    use super::*;

    fn incoming() -> Incoming {
        Incoming {
            message_id: Some("m".into()),
            kind: Some("k".into()),
            exchange: "e".into(),
            routing_key: "r".into(),
            headers: Headers::new(),
            content_type: None,
            payload: Bytes::from_static(b"p"),
            timestamp: None,
            redelivered: false,
            named_operation: None,
        }
    }

    #[test]
    fn a_redelivery_has_the_same_digest_and_any_other_message_another() {
        let first = digest(&incoming());
        let mut again = incoming();
        again.redelivered = true;
        again.headers.insert("x-delivery-count", "1");
        assert_eq!(digest(&again), first);
        type Change = fn(&mut Incoming);
        let changes: [Change; 7] = [
            |m| m.message_id = None,
            |m| m.kind = Some(String::new()),
            |m| m.content_type = Some(String::new()),
            |m| (m.exchange, m.routing_key) = ("er".into(), String::new()),
            |m| drop(m.headers.insert("tenant", "t")),
            |m| m.payload = Bytes::new(),
            |m| m.payload = Bytes::from_static(b"P"),
        ];
        for change in changes {
            let mut other = incoming();
            change(&mut other);
            assert_ne!(digest(&other), first, "{other:?}");
        }
    }

    #[test]
    fn what_no_text_column_can_hold_is_made_visible() {
        assert_eq!(clean("a\0b"), "a\u{2400}b");
        let long = clean(&"ü".repeat(200)).into_owned();
        assert!(long.len() <= 255 && long.ends_with('…'), "{long}");
        assert_eq!(clean(&"k".repeat(255)), "k".repeat(255));
        let mut message = incoming();
        message.headers.insert("h\0", "v\0");
        assert_eq!(headers(&message), "{\"h\u{2400}\":\"v\u{2400}\"}");
    }
}
