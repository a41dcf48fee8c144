use axum::http::StatusCode;
use axum::http::header::{CONTENT_ENCODING, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::policy::Policy;
use super::reply::Reply;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What is kept of a reply, as JSON in the database. Written once and read for as long as keys are
/// known: add variants, change none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stored {
    /// As it was.
    Reply(Plain),
    /// The same as JSON, encrypted, in base64.
    Sealed(String),
    /// Its status alone: it was too large to keep, or a stream.
    NotKept(u16),
}

#[derive(Debug, Serialize, Deserialize)]
struct Plain {
    status: u16,
    headers: Vec<(String, String)>,
    body: Content,
}

/// Text stays readable to an operator.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Content {
    Text(String),
    Base64(String),
}

/// What a repeat gets.
#[derive(Debug)]
pub(crate) enum Kept {
    Reply(Reply),
    /// The first request took effect, and that is all there is.
    NotKept,
}

/// A reply as it is stored. `context` names its row to the encryption.
pub(crate) fn written(reply: &Reply, context: &str, policy: &Policy) -> Result<String, Cause> {
    if reply.body.len() > policy.max_reply {
        return Ok(not_kept(reply.status));
    }
    // Without its coding a body is none.
    let listed = reply
        .headers
        .iter()
        .filter(|(name, _)| policy.headers.contains(name) || **name == CONTENT_ENCODING);
    let headers = listed.map(|(name, value)| (name.as_str().to_owned(), latin1(value.as_bytes())));
    let body = match std::str::from_utf8(&reply.body) {
        Ok(text) => Content::Text(text.to_owned()),
        Err(_) => Content::Base64(STANDARD.encode(&reply.body)),
    };
    let plain = Plain { status: reply.status.as_u16(), headers: headers.collect(), body };
    let stored = match &policy.seal {
        Some(seal) => {
            let sealed = seal.seal(context, &serde_json::to_vec(&plain)?)?;
            Stored::Sealed(STANDARD.encode(sealed))
        }
        None => Stored::Reply(plain),
    };
    Ok(serde_json::to_string(&stored)?)
}

/// What is stored of a reply that cannot be kept.
pub(crate) fn not_kept(status: StatusCode) -> String {
    format!(r#"{{"not_kept":{}}}"#, status.as_u16())
}

/// A header's bytes as text, a character each: they need not be UTF-8.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn bytes_of(latin1: &str) -> Result<Vec<u8>, std::char::TryFromCharError> {
    latin1.chars().map(u8::try_from).collect()
}

/// What was stored. `None` is a reply that retention has dropped.
pub(crate) fn read(stored: Option<&str>, context: &str, policy: &Policy) -> Result<Kept, Cause> {
    let Some(stored) = stored else { return Ok(Kept::NotKept) };
    let plain: Plain = match serde_json::from_str(stored)? {
        Stored::NotKept(_) => return Ok(Kept::NotKept),
        Stored::Reply(plain) => plain,
        Stored::Sealed(sealed) => {
            let seal = policy.seal.as_ref().ok_or(
                "the reply is encrypted and the policy has no `seal`; set the one it was stored with",
            )?;
            serde_json::from_slice(&seal.open(context, &STANDARD.decode(sealed)?)?)?
        }
    };
    let mut reply = Reply::new(StatusCode::from_u16(plain.status)?);
    for (name, value) in plain.headers {
        let value = HeaderValue::from_bytes(&bytes_of(&value)?)?;
        reply = reply.with_header(HeaderName::try_from(name)?, value);
    }
    let body = match plain.body {
        Content::Text(text) => text.into_bytes(),
        Content::Base64(text) => STANDARD.decode(text)?,
    };
    Ok(Kept::Reply(reply.with_body(body)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::http::header::{DATE, ETAG, LOCATION, SET_COOKIE};

    use super::*;
    use crate::http::Seal;

    #[derive(Debug)]
    struct Backwards;

    impl Seal for Backwards {
        fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>, Cause> {
            Ok(context.bytes().chain(plain.iter().rev().copied()).collect())
        }

        fn open(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, Cause> {
            let text = sealed.strip_prefix(context.as_bytes()).ok_or("of another row")?;
            Ok(text.iter().rev().copied().collect())
        }
    }

    fn again(reply: &Reply, policy: &Policy) -> Reply {
        let stored = written(reply, "row", policy).expect("is written");
        match read(Some(&stored), "row", policy).expect("is read") {
            Kept::Reply(reply) => reply,
            Kept::NotKept => panic!("not kept: {stored}"),
        }
    }

    #[test]
    fn text_and_bytes_come_back_with_the_listed_headers_only() {
        let policy = Policy::new("p", "https://p.example");
        let value = HeaderValue::from_static;
        for body in [&b"{\"a\":\"\\u0000\"}"[..], b"\xff\0\xfe", b"\0", b""] {
            let kept = Reply::new(StatusCode::CREATED)
                .with_header(LOCATION, value("/orders/1"))
                .with_header(ETAG, HeaderValue::from_bytes(b"\"gr\xc3\xb6\xff\"").expect("opaque"))
                .with_body(body.to_vec());
            let given = kept
                .clone()
                .with_header(SET_COOKIE, value("session=secret"))
                .with_header(DATE, value("now"));
            assert_eq!(again(&given, &policy), kept);
        }
    }

    #[test]
    fn an_encrypted_reply_shows_nothing_and_opens_in_its_row_only() {
        let policy =
            Policy { seal: Some(Arc::new(Backwards)), ..Policy::new("p", "https://p.example") };
        let reply = Reply::new(StatusCode::OK).with_body("card 4242");
        let stored = written(&reply, "row", &policy).expect("is written");
        assert!(!stored.contains("4242") && !stored.contains("status"), "{stored}");
        assert_eq!(again(&reply, &policy), reply);
        assert!(read(Some(&stored), "another row", &policy).is_err());
        let without = Policy { seal: None, ..policy };
        let error = read(Some(&stored), "row", &without).expect_err("no key").to_string();
        assert!(error.contains("`seal`"), "{error}");
    }

    #[test]
    fn a_reply_over_the_limit_leaves_a_mark_and_never_a_part() {
        let policy = Policy { max_reply: 4, ..Policy::new("p", "https://p.example") };
        let reply = Reply::new(StatusCode::OK).with_body("12345");
        let stored = written(&reply, "row", &policy).expect("is written");
        assert_eq!(stored, r#"{"not_kept":200}"#);
        assert!(matches!(read(Some(&stored), "row", &policy), Ok(Kept::NotKept)));
        assert!(matches!(read(None, "row", &policy), Ok(Kept::NotKept)));
        assert_eq!(again(&reply.clone().with_body("1234"), &policy).body, "1234");
    }
}
