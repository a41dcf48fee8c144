use axum::extract::{MatchedPath, OriginalUri};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use message::{Fingerprint, InvalidMessage, OperationKey};

use super::Caller;
use super::policy::{Compare, Policy};
use crate::Consumer;
use crate::store::Row;

/// What tells one request from another.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Hash of caller, method, route and key, within the route for people to read.
    pub(crate) operation: OperationKey,
    /// Hash of method, path, query and body.
    pub(crate) fingerprint: Fingerprint,
    /// The number of its advisory lock, under any policy.
    lock: i64,
}

impl Identity {
    /// Neither key nor caller can be found out from it: all that is stored and logged is a hash.
    pub(crate) fn of(
        parts: &Parts,
        caller: Option<&Caller>,
        key: &str,
        body: &[u8],
        policy: &Policy,
    ) -> Result<Self, InvalidMessage> {
        let method = parts.method.as_str();
        // A nested router sees a path without what it is nested under, parameters and all.
        let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
        let matched = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
        let route = matched.unwrap_or_else(|| uri.path());
        let (tenant, principal) =
            caller.map_or(("", ""), |caller| (&*caller.tenant, &*caller.principal));
        // Whether there is a caller is hashed, too: one with empty names is not nobody.
        let named = if caller.is_some() { "caller" } else { "shared" };
        let scope = hash(&[named, tenant, principal, method, route, key].map(str::as_bytes));
        // A path that is not of the application's own writing can say anything about anybody.
        let shown = matched.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
        let operation = OperationKey::new(readable(&shown), id(&scope))?;

        let json = is_json(parts);
        let body = match policy.compare {
            Compare::Canonical if json => Fingerprint::of_payload(body, &[]),
            Compare::Canonical | Compare::Bytes => Fingerprint::of_bytes(body),
        };
        let (path, query) = (uri.path().as_bytes(), uri.query().unwrap_or_default().as_bytes());
        let fingerprint = hash(&[method.as_bytes(), path, query, body.as_bytes()]);
        Ok(Self { operation, fingerprint, lock: lock(&scope) })
    }

    /// Enough of the hash to find its row, for logs.
    pub(crate) fn short(&self) -> &str {
        let id = self.operation.id();
        id.get(..12).unwrap_or(id)
    }

    /// Names its row to the encryption. No part can hold a line's end.
    pub(crate) fn context(&self, consumer: &str) -> String {
        format!("{consumer}\n{}\n{}", self.operation.scope(), self.operation.id())
    }

    /// The number of its advisory lock under the policy of a consumer: requests that one service passes on to
    /// another, key and all, are different ones, also where the two share a database.
    pub(crate) const fn lock_under(&self, consumer: i64) -> i64 {
        self.lock ^ consumer
    }

    pub(crate) fn row<'a>(&'a self, consumer: &'a str) -> Row<'a> {
        Row {
            consumer: Consumer(consumer),
            operation: &self.operation,
            fingerprint: &self.fingerprint,
            message_id: None,
            redelivered: false,
            replay: false,
        }
    }
}

/// 192 bits of a hash in half of the characters that all of it takes in hexadecimal: it is in the row, in its index
/// and in the log of both, and no two callers' keys will meet.
fn id(hash: &Fingerprint) -> String {
    let [id @ .., _, _, _, _, _, _, _, _] = hash.as_bytes();
    URL_SAFE_NO_PAD.encode(id)
}

/// A number for an advisory lock, from a hash.
pub(crate) fn lock(hash: &Fingerprint) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Whether the body is declared as JSON.
pub(crate) fn is_json(parts: &Parts) -> bool {
    let declared = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = declared.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// For people: what tells routes apart is in the hash.
fn readable(shown: &str) -> String {
    let mut text = String::new();
    for c in shown.chars().filter(|c| !c.is_control()) {
        if text.len() + c.len_utf8() > message::MAX_NAME_BYTES {
            break;
        }
        text.push(c);
    }
    text
}

/// Each part with its length, so that no two lists of parts look alike.
fn hash(parts: &[&[u8]]) -> Fingerprint {
    let mut bytes =
        Vec::with_capacity(parts.iter().map(|part| size_of::<u64>() + part.len()).sum());
    for part in parts {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(*part);
    }
    Fingerprint::of_bytes(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn of(caller: Option<&Caller>, uri: &str, key: &str, body: &str) -> Identity {
        let request = Request::post(uri).header(CONTENT_TYPE, "application/json; charset=utf-8");
        let (parts, ()) = request.body(()).expect("valid").into_parts();
        let policy = Policy::new("p", "https://p.example");
        Identity::of(&parts, caller, key, body.as_bytes(), &policy).expect("fits")
    }

    #[test]
    fn no_part_of_the_scope_can_imitate_another() {
        let callers = [
            None,
            Some(Caller::new("", "")),
            Some(Caller::new("a", "bc")),
            Some(Caller::new("ab", "c")),
        ];
        let mut seen = std::collections::HashSet::new();
        for caller in &callers {
            for (uri, key) in [("/a", "bk"), ("/ab", "k"), ("/a", "k")] {
                let identity = of(caller.as_ref(), uri, key, "{}");
                assert!(seen.insert(identity.operation.id().to_owned()), "{caller:?} {uri} {key}");
            }
        }
    }

    #[test]
    fn query_and_content_make_the_fingerprint_and_the_form_of_json_does_not() {
        let one = of(None, "/a?x=1", "k", r#"{"a":1,"b":2}"#);
        assert_eq!(one.fingerprint, of(None, "/a?x=1", "k", r#"{ "b":2, "a":1 }"#).fingerprint);
        assert_ne!(one.fingerprint, of(None, "/a?x=2", "k", r#"{"a":1,"b":2}"#).fingerprint);
        assert_ne!(one.fingerprint, of(None, "/a?x=1", "k", r#"{"a":1,"b":3}"#).fingerprint);
        assert_eq!(one.operation.scope(), "POST");
        assert!(!format!("{one:?}").contains("\"k\""));
    }
}
