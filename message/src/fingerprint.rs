use std::fmt;
use std::str::FromStr;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// SHA-256 over the content of an operation: tells a duplicate from a conflict.
///
/// JSON payloads are canonicalised first (object keys sorted, no white space, numbers as parsed),
/// so two encoders agree. RFC 8785 is deliberately not used: it passes numbers through `f64`, where
/// two large amounts can become equal. Here whole numbers below 2^64 are told apart exactly;
/// fractions and larger numbers are read as `f64`, so write money in minor units or as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of raw bytes, for payloads that are not JSON.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The fingerprint of a JSON value without the named top-level fields.
    #[must_use]
    pub fn of_json(value: &Value, excludes: &[&str]) -> Self {
        let mut canonical = Vec::new();
        write_canonical(&mut canonical, value, excludes);
        Self::of_bytes(&canonical)
    }

    /// The fingerprint of a payload: of its canonical JSON where it is JSON, else of its bytes.
    #[must_use]
    pub fn of_payload(payload: &[u8], excludes: &[&str]) -> Self {
        match serde_json::from_slice(payload) {
            Ok(value) => Self::of_json(&value, excludes),
            Err(_) => Self::of_bytes(payload),
        }
    }

    /// The 32 bytes, as stored.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Fingerprint {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// Lower-case hexadecimal, as it travels in a header.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of every message, so not by the general formatter.
        let nibbles = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let digits = nibbles.filter_map(|nibble| char::from_digit(nibble.into(), 16));
        f.write_str(&digits.collect::<String>())
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 64 hexadecimal digits")]
pub struct NotAFingerprint;

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits: &[u8; 64] = text.as_bytes().try_into().map_err(|_| NotAFingerprint)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            let [high, low] = pair.map(digit);
            *byte = high.ok_or(NotAFingerprint)? << 4 | low.ok_or(NotAFingerprint)?;
        }
        Ok(Self(bytes))
    }
}

/// Of every message, so not by the general parser.
const fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        b'A'..=b'F' => Some(character - b'A' + 10),
        _ => None,
    }
}

fn write_canonical(out: &mut Vec<u8>, value: &Value, excludes: &[&str]) {
    match value {
        Value::Object(map) => {
            // Sorted here rather than trusted to the map type: a `preserve_order` feature switched
            // on anywhere in the build would silently change every fingerprint.
            let mut fields: Vec<_> =
                map.iter().filter(|(name, _)| !excludes.contains(&name.as_str())).collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            out.push(b'{');
            for (i, (name, field)) in fields.into_iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_scalar(out, name);
                out.push(b':');
                write_canonical(out, field, &[]);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_canonical(out, item, &[]);
            }
            out.push(b']');
        }
        scalar => write_scalar(out, scalar),
    }
}

fn write_scalar(out: &mut Vec<u8>, scalar: &impl serde::Serialize) {
    // Neither a string nor a number can fail, nor can the memory that it is written to.
    let _ = serde_json::to_writer(out, scalar);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(json: &str) -> Fingerprint {
        Fingerprint::of_payload(json.as_bytes(), &[])
    }

    #[test]
    fn key_order_and_white_space_do_not_matter() {
        assert_eq!(of(r#"{"a":1,"b":{"c":2,"d":3}}"#), of(r#"{ "b": {"d":3, "c":2}, "a":1 }"#));
    }

    #[test]
    fn neighbouring_large_amounts_differ() {
        assert_ne!(of(r#"{"cents":9007199254740992}"#), of(r#"{"cents":9007199254740993}"#));
    }

    #[test]
    fn array_order_and_types_matter() {
        assert_ne!(of("[1,2]"), of("[2,1]"));
        assert_ne!(of(r#"{"a":"1"}"#), of(r#"{"a":1}"#));
    }

    #[test]
    fn only_top_level_fields_are_excluded() {
        let of = |json: &str| Fingerprint::of_payload(json.as_bytes(), &["at"]);
        assert_eq!(of(r#"{"a":1,"at":1}"#), of(r#"{"a":1,"at":2}"#));
        assert_ne!(of(r#"{"a":{"at":1}}"#), of(r#"{"a":{"at":2}}"#));
    }

    #[test]
    fn known_value() {
        assert_eq!(
            of("{}").to_string(),
            "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
    }

    proptest! {
        #[test]
        fn bytes_that_are_not_json_still_have_a_fingerprint(bytes: Vec<u8>) {
            let fingerprint = Fingerprint::of_payload(&bytes, &[]);
            prop_assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        }

        #[test]
        fn any_text_parses_or_is_refused_without_panic(text: String) {
            let _ = text.parse::<Fingerprint>();
        }
    }
}
