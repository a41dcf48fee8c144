use axum::http::header::HeaderName;
use axum::http::{HeaderMap, Method};
use sfv::{BareItem, Item, Parser};

use super::policy::Policy;
use super::problem::Problem;

/// The header that names an operation.
pub const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Longest key in bytes, decoded.
const LONGEST: usize = 255;

/// What a request's method asks of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// A safe method changes nothing, so nothing of it is ever stored, key or not.
    Nothing,
    /// HTTP already calls it idempotent; a key makes it so and gives the first reply.
    Optional,
    Required,
}

fn asks(method: &Method, policy: &Policy) -> Asks {
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE => Asks::Nothing,
        Method::PUT | Method::DELETE => Asks::Optional,
        _ if policy.required => Asks::Required,
        _ => Asks::Optional,
    }
}

/// The key of a request, decoded; `None` where it needs none and names none.
pub(crate) fn key_of(
    method: &Method,
    headers: &HeaderMap,
    policy: &Policy,
) -> Result<Option<String>, Problem> {
    let asks = asks(method, policy);
    if asks == Asks::Nothing {
        return Ok(None);
    }
    let mut values = headers.get_all(KEY).iter();
    let Some(value) = values.next() else {
        return if asks == Asks::Required { Err(Problem::MissingKey) } else { Ok(None) };
    };
    if values.next().is_some() {
        return Err(Problem::BadKey("Send one Idempotency-Key header, with one key."));
    }
    let key = match (decoded(value.as_bytes()), policy.lenient_keys) {
        (Some(key), _) => key,
        (None, true) => bare(value.as_bytes()).ok_or(Problem::BadKey(
            "Send a key in quotes, or one without blanks, commas, semicolons, quotes and backslashes.",
        ))?,
        (None, false) => {
            return Err(Problem::BadKey(
                "Send a structured-field string: ASCII characters in double quotes, as in \"8e03978e-40d5\".",
            ));
        }
    };
    match key.len() {
        0 => Err(Problem::BadKey("The key is empty.")),
        1..=LONGEST => Ok(Some(key)),
        _ => Err(Problem::BadKey("The key is longer than 255 bytes.")),
    }
}

/// A structured-field string; its parameters say nothing to us.
fn decoded(value: &[u8]) -> Option<String> {
    let item: Item = Parser::new(value).parse().ok()?;
    match item.bare_item {
        BareItem::String(key) => Some(key.as_str().to_owned()),
        _ => None,
    }
}

fn bare(value: &[u8]) -> Option<String> {
    let plain = value.iter().all(|b| b.is_ascii_graphic() && !b"\",;\\".contains(b));
    plain.then(|| String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn key(values: &[&[u8]], spoil: impl FnOnce(&mut Policy)) -> Result<Option<String>, Problem> {
        let mut policy = Policy::new("p", "https://p.example");
        spoil(&mut policy);
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(KEY, HeaderValue::from_bytes(value).expect("a header value"));
        }
        key_of(&Method::POST, &headers, &policy)
    }

    #[test]
    fn escapes_are_decoded() {
        assert_eq!(key(&[br#""a\"b\\c""#], |_| {}), Ok(Some(r#"a"b\c"#.to_owned())));
        assert_eq!(key(&[br#" "a";p=1 "#], |_| {}), Ok(Some("a".to_owned())));
    }

    #[test]
    fn what_is_no_string_is_refused_by_name() {
        let long = format!("\"{}\"", "k".repeat(256));
        let all: [&[&[u8]]; 13] = [
            &[b"abc"],
            &[b"12"],
            &[b"\"a\", \"b\""],
            &[b"(\"a\" \"b\")"],
            &[b";p=1"],
            &[b""],
            &[b"\"\""],
            &[b"\"abc"],
            &[b"\"a\\x\""],
            &[b"\"\xc3\xa4\""],
            &[b"\"a\tb\""],
            &[b"\"a\"", b"\"a\""],
            &[long.as_bytes()],
        ];
        for values in all {
            let refused = key(values, |_| {});
            assert!(matches!(refused, Err(Problem::BadKey(_))), "{values:?}: {refused:?}");
        }
        let longest = format!("\"{}\"", "k".repeat(255));
        assert!(key(&[longest.as_bytes()], |_| {}).is_ok());
    }

    #[test]
    fn a_bare_key_passes_where_the_policy_says_so() {
        let lenient = |policy: &mut Policy| policy.lenient_keys = true;
        let uuid = "8e03978e-40d5-43e8-bc93-6894a57f9324";
        assert_eq!(key(&[uuid.as_bytes()], lenient), Ok(Some(uuid.to_owned())));
        assert_eq!(key(&[b"\"a b\""], lenient), Ok(Some("a b".to_owned())));
        for bad in [&b"a, b"[..], b"a b", b"\"a", b";p=1"] {
            assert!(matches!(key(&[bad], lenient), Err(Problem::BadKey(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_missing_key_is_a_problem_only_where_one_is_needed() {
        assert_eq!(key(&[], |_| {}), Err(Problem::MissingKey));
        assert_eq!(key(&[], |policy| policy.required = false), Ok(None));
        let policy = Policy::new("p", "https://p.example");
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
            assert_eq!(key_of(&method, &HeaderMap::new(), &policy), Ok(None), "{method}");
        }
        let mut headers = HeaderMap::new();
        headers.append(KEY, HeaderValue::from_static("nonsense"));
        assert_eq!(key_of(&Method::GET, &headers, &policy), Ok(None));
        assert!(key_of(&Method::PUT, &headers, &policy).is_err());
    }
}
