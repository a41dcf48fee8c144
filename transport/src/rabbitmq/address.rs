use std::fmt;
use std::time::Duration;

use lapin::uri::{AMQPScheme, AMQPUri};
use url::{Host, Url};

use super::plaintext;
use super::settings::RabbitSettings;
use super::tls::TlsFiles;
use crate::Unavailable;

/// A checked broker address. Displays without user and password.
#[derive(Clone)]
pub(super) struct Address {
    uri: AMQPUri,
    connect_timeout: Duration,
    blocked_timeout: Duration,
    tls: TlsFiles,
}

/// Largest frame asked for where nothing needs a larger one. RabbitMQ takes no less than 8 KiB.
const NARROW_FRAME: u32 = 16 * 1024;

impl Address {
    /// The same with narrow frames, unless the URL names a size.
    pub(super) fn narrow(&self) -> Self {
        let mut narrow = self.clone();
        narrow.uri.query.frame_max.get_or_insert(NARROW_FRAME);
        narrow
    }

    /// Checks the URL and the settings that end up in it.
    pub(super) fn parse(settings: &RabbitSettings) -> Result<Self, Unavailable> {
        // `ParseError` names the kind of fault and never quotes the input; the URI type of the
        // client does quote it, so none of its texts is passed on.
        let url = Url::parse(&settings.url).map_err(|error| {
            bad(format!(
                "the broker URL is not a URL: {error}; write amqp://user:password@host:port/vhost"
            ))
        })?;
        let tls = TlsFiles::of(settings).map_err(bad)?;
        match url.scheme() {
            "amqp" => plaintext::check(&url, &tls, settings.allow_plaintext).map_err(bad)?,
            // Without TLS compiled in, the client would connect in plain text and say nothing.
            "amqps" if !cfg!(feature = "tls") => {
                return Err(bad(
                    "the broker URL asks for TLS (amqps) and this program was built without it; build with feature `tls`",
                ));
            }
            "amqps" => {}
            other => {
                return Err(bad(format!(
                    "the broker URL has scheme {other:?}; write amqp:// or amqps://"
                )));
            }
        }
        let Some(host) = url.host() else {
            return Err(bad(
                "the broker URL names no host; write amqp://user:password@host:port/vhost",
            ));
        };
        let mut connect_timeout = settings.connect_timeout;
        let mut heartbeat = settings.heartbeat;
        for (name, value) in url.query_pairs() {
            let number = value.parse::<u64>().map_err(|_| {
                bad(format!("the broker URL's parameter {name:?} is not a whole number"))
            })?;
            match &*name {
                "heartbeat" => heartbeat = Duration::from_secs(number),
                "connection_timeout" => connect_timeout = Duration::from_millis(number),
                "frame_max" if number >= 4096 && number <= u64::from(u32::MAX) => {}
                "channel_max" if number >= 2 && number <= u64::from(u16::MAX) => {}
                "frame_max" | "channel_max" => {
                    return Err(bad(format!(
                        "the broker URL's parameter {name:?} is out of range: {number}"
                    )));
                }
                _ => {
                    return Err(bad(format!(
                        "the broker URL has the unknown parameter {name:?}; known are heartbeat, connection_timeout, frame_max, channel_max"
                    )));
                }
            }
        }
        let seconds = u16::try_from(heartbeat.as_secs()).unwrap_or(0);
        if seconds == 0 {
            return Err(bad(
                "heartbeat must be 1 to 65535 seconds: without it a silent connection is never given up",
            ));
        }
        for (name, value) in [
            ("connect_timeout", connect_timeout),
            ("publish_timeout", settings.publish_timeout),
            ("blocked_timeout", settings.blocked_timeout),
        ] {
            if value.is_zero() {
                return Err(bad(format!("{name} is zero; give it some seconds")));
            }
        }
        if settings.window == 0 {
            return Err(bad("window is 0; give it 1 to some thousand messages"));
        }
        let mut uri: AMQPUri = settings.url.parse().map_err(|_: String| {
            bad("user, password or virtual host in the broker URL are not percent-encoded UTF-8")
        })?;
        // The client's parser turns an IPv6 host into `localhost`.
        uri.authority.host = match host {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        };
        if uri.vhost.is_empty() {
            uri.vhost = "/".to_owned();
        }
        for (name, value) in
            [("virtual host", &uri.vhost), ("user", &uri.authority.userinfo.username)]
        {
            if value.len() > message::MAX_NAME_BYTES {
                return Err(bad(format!(
                    "the {name} in the broker URL is longer than {} bytes",
                    message::MAX_NAME_BYTES
                )));
            }
        }
        uri.query.heartbeat = Some(seconds);
        Ok(Self { uri, connect_timeout, blocked_timeout: settings.blocked_timeout, tls })
    }

    pub(super) fn uri(&self) -> AMQPUri {
        self.uri.clone()
    }

    pub(super) fn heartbeat(&self) -> Duration {
        Duration::from_secs(self.uri.query.heartbeat.unwrap_or_default().into())
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Where trust and identity come from on a connection with TLS.
    pub(super) fn tls(&self) -> &TlsFiles {
        &self.tls
    }

    #[cfg(feature = "tls")]
    pub(super) fn is_secure(&self) -> bool {
        match self.uri.scheme {
            AMQPScheme::AMQP => false,
            AMQPScheme::AMQPS => true,
        }
    }

    pub(super) fn blocked_timeout(&self) -> Duration {
        self.blocked_timeout
    }

    /// Host and port.
    pub(super) fn host(&self) -> String {
        let (host, port) = (&self.uri.authority.host, self.uri.authority.port);
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    pub(super) fn user(&self) -> &str {
        &self.uri.authority.userinfo.username
    }

    pub(super) fn vhost(&self) -> &str {
        &self.uri.vhost
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.uri.scheme {
            AMQPScheme::AMQP => "amqp",
            AMQPScheme::AMQPS => "amqps",
        };
        write!(f, "{scheme}://{} vhost {:?}", self.host(), self.vhost())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn bad(reason: impl Into<String>) -> Unavailable {
    Unavailable::BadSettings { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> RabbitSettings {
        RabbitSettings { allow_plaintext: true, ..RabbitSettings::new(url) }
    }

    fn parse(url: &str) -> Result<Address, Unavailable> {
        Address::parse(&settings(url))
    }

    #[test]
    fn parts_are_percent_decoded() {
        let address = parse("amqp://us%40er:p%2Fw@broker:1234/v%2fh").expect("valid");
        assert_eq!(
            (address.host().as_str(), address.user(), address.vhost()),
            ("broker:1234", "us@er", "v/h")
        );
        assert_eq!(address.uri().authority.userinfo.password, "p/w");
    }

    #[test]
    fn an_ipv6_host_is_not_silently_localhost() {
        assert_eq!(parse("amqp://[2001:db8::7]:99").expect("valid").host(), "[2001:db8::7]:99");
    }

    #[test]
    fn no_vhost_and_an_empty_vhost_are_the_default_one() {
        for url in ["amqp://h", "amqp://h/", "amqp://h/%2f", "amqp://h?heartbeat=3"] {
            assert_eq!(parse(url).expect(url).vhost(), "/", "{url}");
        }
    }

    #[test]
    fn parameters_in_the_url_win() {
        let address = parse("amqp://h?heartbeat=3&connection_timeout=250").expect("valid");
        assert_eq!(address.heartbeat(), Duration::from_secs(3));
        assert_eq!(address.connect_timeout(), Duration::from_millis(250));
    }

    #[test]
    fn bad_urls_are_refused_without_the_password() {
        for url in [
            "amqp://u:s3cret@h:port",
            "amqp:u:s3cret@h",
            "u:s3cret@h",
            "amqp://u:s3cret@",
            "http://u:s3cret@h",
            "amqp://u:s3cret%ff@h",
            "amqp://u:s3cret@h?heartbeat=0",
            "amqp://u:s3cret@h?heartbeat=soon",
            "amqp://u:s3cret@h?frame_max=1",
            "amqp://u:s3cret@h?cacertfile=7",
        ] {
            let error = parse(url).expect_err(url);
            assert!(matches!(error, Unavailable::BadSettings { .. }), "{url}: {error:?}");
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
            assert!(!format!("{:?}", settings(url)).contains("s3cret"));
        }
    }

    #[test]
    fn debug_of_a_valid_address_has_no_credentials() {
        let settings = settings("amqp://alice:s3cret@h/v");
        let address = Address::parse(&settings).expect("valid");
        for text in [format!("{settings:?}"), format!("{address:?}"), address.to_string()] {
            assert!(!text.contains("s3cret") && !text.contains("alice"), "{text}");
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn tls_is_refused_when_it_would_be_plain_text() {
        let error = parse("amqps://u:s3cret@h").expect_err("no TLS in this build").to_string();
        assert!(error.contains("feature `tls`") && !error.contains("s3cret"), "{error}");
    }
}
