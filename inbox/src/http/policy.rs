use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::{self, HeaderName};
use message::{InvalidMessage, check_name};

use super::Seal;

/// Whether a reply outlives its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It is kept together with what the handler did: a repeat gets it again.
    Stored,
    /// It is not kept and what the handler did is undone: a repeat runs the handler again.
    Free,
}

/// How the body of a repeat is compared with the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// JSON by its content: order of members and white space do not count. Anything else by its bytes.
    /// See [`Fingerprint`](message::Fingerprint) on numbers.
    Canonical,
    /// Byte for byte.
    Bytes,
}

/// What a service promises about `Idempotency-Key`, and publishes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Policy {
    /// What its keys are stored under, as consumer `http:NAME`, and the label of its metrics. Stored for
    /// ever: a policy that is renamed forgets its keys. Two routes may share a policy; their keys are
    /// apart all the same.
    pub name: String,
    /// Where the policy is published: problems point to its sections.
    pub url: String,
    /// How long a key is known, by the database's clock, and the expiry to publish: from the commit
    /// on, or in the layer from its completion. After it the key is as new, whether the purge has run or
    /// not. Default 24 h.
    pub keep: Duration,
    /// Whether POST and PATCH need a key. Default true; false handles a request without one normally,
    /// and stores nothing. PUT and DELETE never need one.
    pub required: bool,
    /// Whether a key without quotes is taken as it is, where it has no blank, comma, semicolon, quote or
    /// backslash. Default false. Many clients send a bare UUID.
    pub lenient_keys: bool,
    /// Whether requests without a [`Caller`](super::Caller) share one scope. Default false: they are a
    /// fault of the application, answered with 500. Only for services that have one client.
    pub shared_scope: bool,
    /// How long a request waits for an earlier one of its key, before 409. Default zero. Waiting takes
    /// no connection.
    pub wait: Duration,
    /// What 409 and 503 say in `Retry-After`, in whole seconds, rounded up. Default 1 s.
    pub retry_after: Duration,
    /// The largest request body in bytes; over it 413. Default 1 MiB.
    pub max_body: usize,
    /// The largest reply body that is kept, in bytes. A larger one is given once, and repeats get 409:
    /// nothing is cut off. Default 256 KiB.
    pub max_reply: usize,
    /// Headers of a reply that are kept. Default `content-type`, `content-language`,
    /// `content-location`, `location`, `etag`. Others are in the first reply only. Cookies, credentials
    /// and what belongs to one connection are refused here.
    pub headers: Vec<HeaderName>,
    /// What becomes of a 4xx that the handler returns as its reply. Default [`Keep::Stored`].
    pub client_errors: Keep,
    /// What becomes of a 5xx. Default [`Keep::Free`]. With [`Keep::Stored`] a failure (an error or a panic)
    /// is undone and its 500 kept: the key is spent, as at Stripe.
    pub server_errors: Keep,
    /// How bodies are compared. Default [`Compare::Canonical`].
    pub compare: Compare,
    /// Longest wait for one run of a transaction; over it 503, and a repeat finds out. Default 60 s. At
    /// least the database's `statement_timeout`.
    pub deadline: Duration,
    /// Repetitions of a whole transaction that lost against another one, or its connection before COMMIT,
    /// before 503. Default 5.
    pub transaction_retries: u32,
    /// How long a run outside a transaction is left alone after its owner was last heard of. Default 30 s.
    /// It is renewed three times in that time, so it bounds no handler. Layer only.
    pub lease: Duration,
    /// Encrypts stored replies. Default none.
    pub seal: Option<Arc<dyn Seal>>,
}

/// Never kept: secrets, and what belongs to one connection or moment.
const NEVER: [HeaderName; 19] = [
    header::SET_COOKIE,
    header::COOKIE,
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::WWW_AUTHENTICATE,
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("authentication-info"),
    HeaderName::from_static("set-cookie2"),
    header::DATE,
    header::AGE,
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    HeaderName::from_static("traceparent"),
    super::REPLAYED,
];

/// Why a policy cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Its name cannot be stored.
    #[error("the policy cannot be named so: {0}")]
    Name(#[from] InvalidMessage),
    /// `#` begins the number of a generation.
    #[error("{name:?} cannot be a policy's name: `#` is reserved; use another character")]
    ReservedName {
        /// The name.
        name: String,
    },
    /// The address cannot stand in a header.
    #[error(
        "url = {url:?} cannot be linked to; give the absolute address of the published policy, without a fragment"
    )]
    Url {
        /// The address.
        url: String,
    },
    /// A header that must not be kept.
    #[error(
        "headers lists {name}, which would hand a secret, or what belongs to one connection, to whoever repeats a request; take it out"
    )]
    Header {
        /// Its name.
        name: HeaderName,
    },
    /// A setting makes no sense.
    #[error("{setting} is 0; {remedy}")]
    Zero {
        /// Its name.
        setting: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A hanging handler would hold its key for longer than anybody waits for it.
    #[error(
        "statement_timeout of the database is {statement:?} and deadline {deadline:?}; lower the first (zero means no limit) or raise the second"
    )]
    OutlivesDeadline {
        /// [`db::Settings::statement_timeout`].
        statement: Duration,
        /// [`Policy::deadline`].
        deadline: Duration,
    },
}

impl Policy {
    /// The defaults under a name, published at `url`.
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            keep: Duration::from_secs(24 * 60 * 60),
            required: true,
            lenient_keys: false,
            shared_scope: false,
            wait: Duration::ZERO,
            retry_after: Duration::from_secs(1),
            max_body: 1024 * 1024,
            max_reply: 256 * 1024,
            headers: vec![
                header::CONTENT_TYPE,
                header::CONTENT_LANGUAGE,
                header::CONTENT_LOCATION,
                header::LOCATION,
                header::ETAG,
            ],
            client_errors: Keep::Stored,
            server_errors: Keep::Free,
            compare: Compare::Canonical,
            deadline: Duration::from_secs(60),
            transaction_retries: 5,
            lease: Duration::from_secs(30),
            seal: None,
        }
    }

    pub(crate) fn check(&self, database: &db::Settings) -> Result<(), PolicyError> {
        check_name("policy", &self.name)?;
        check_name("policy", &self.consumer())?;
        if self.name.contains('#') {
            return Err(PolicyError::ReservedName { name: self.name.clone() });
        }
        let plain = |b: u8| b.is_ascii_graphic() && !b"#<>\"".contains(&b);
        if !self.url.contains("://") || !self.url.bytes().all(plain) {
            return Err(PolicyError::Url { url: self.url.clone() });
        }
        if let Some(name) = self.headers.iter().find(|name| NEVER.contains(name)) {
            return Err(PolicyError::Header { name: name.clone() });
        }
        for (setting, zero, remedy) in [
            ("keep", self.keep.is_zero(), "every repeat would run its handler; set at least a day"),
            ("retry_after", self.retry_after.is_zero(), "clients would come back at once; set 1 s"),
            ("max_body", self.max_body == 0, "no request could have a body; set its largest size"),
            ("deadline", self.deadline.is_zero(), "no handler could answer; set at least 1 s"),
            ("lease", self.lease.is_zero(), "every run would be taken over at once; set 30 s"),
        ] {
            if zero {
                return Err(PolicyError::Zero { setting, remedy });
            }
        }
        let statement = database.statement_timeout;
        if statement.is_zero() || statement > self.deadline {
            return Err(PolicyError::OutlivesDeadline { statement, deadline: self.deadline });
        }
        Ok(())
    }

    /// What its keys are stored under.
    #[must_use]
    pub fn consumer(&self) -> String {
        format!("http:{}", self.name)
    }

    pub(crate) fn keeps(&self, status: StatusCode) -> Keep {
        if status.is_server_error() {
            self.server_errors
        } else if status.is_client_error() {
            self.client_errors
        } else {
            Keep::Stored
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_and_nothing_of_one_connection_or_moment_can_be_listed() {
        for name in [
            "set-cookie",
            "set-cookie2",
            "cookie",
            "authorization",
            "proxy-authorization",
            "www-authenticate",
            "proxy-authenticate",
            "authentication-info",
            "date",
            "age",
            "connection",
            "keep-alive",
            "content-length",
            "transfer-encoding",
            "te",
            "trailer",
            "upgrade",
            "traceparent",
            "idempotency-replayed",
        ] {
            let mut policy = Policy::new("orders", "https://shop.example/idempotency");
            policy.headers.push(HeaderName::from_static(name));
            let name = HeaderName::from_static(name);
            let refused = Err(PolicyError::Header { name });
            assert_eq!(policy.check(&db::Settings::default()), refused);
        }
    }

    #[test]
    fn policies_that_void_a_promise_are_refused_by_name() {
        type Spoil = fn(&mut Policy);
        let cases: [(Spoil, &str); 10] = [
            (|p| p.name = String::new(), "the policy cannot be named so"),
            (|p| p.name = "a#2".into(), "\"a#2\" cannot be a policy's name"),
            (|p| p.url = "/policy".into(), "url = \"/policy\""),
            (|p| p.url = "https://a.example/#top".into(), "url = "),
            (|p| p.headers.push(header::SET_COOKIE), "headers lists set-cookie"),
            (|p| p.headers.push(header::DATE), "headers lists date"),
            (|p| p.keep = Duration::ZERO, "keep is 0"),
            (|p| p.lease = Duration::ZERO, "lease is 0"),
            (|p| p.max_body = 0, "max_body is 0"),
            (|p| p.deadline = Duration::from_secs(59), "statement_timeout of the database is 60s"),
        ];
        let good = Policy::new("orders", "https://shop.example/idempotency");
        assert_eq!(good.check(&db::Settings::default()), Ok(()));
        for (spoil, text) in cases {
            let mut policy = good.clone();
            spoil(&mut policy);
            let error = policy.check(&db::Settings::default()).expect_err(text).to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
