use std::net::IpAddr;

use url::{Host, Url};

use super::tls::TlsFiles;

/// Refuses a connection without TLS that leaves this machine unasked, and one that has been given files
/// for TLS.
pub(super) fn check(url: &Url, tls: &TlsFiles, allowed: bool) -> Result<(), String> {
    if let Some((setting, path)) = tls.named() {
        return Err(format!(
            "{setting} is {} and the broker URL says amqp://, which has no TLS; write amqps:// (and its port, usually 5671), or leave {setting} out",
            path.display()
        ));
    }
    match url.host() {
        Some(host) if !allowed && !is_loopback(&host) => Err(format!(
            "the broker URL says amqp:// to {host}, which is not this machine: user, password and messages would cross the network in plain text; write amqps://, or set allow_plaintext where something else protects the way"
        )),
        _ => Ok(()),
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    let address = match host {
        // The scheme is none that the standard knows, so an IPv4 address stays text.
        Host::Domain(name) if name.eq_ignore_ascii_case("localhost") => return true,
        Host::Domain(name) => name.parse().map(IpAddr::V4),
        Host::Ipv4(ip) => Ok(IpAddr::V4(*ip)),
        Host::Ipv6(ip) => Ok(IpAddr::V6(*ip)),
    };
    address.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::super::address::Address;
    use super::super::settings::RabbitSettings;

    fn allowing(url: &str) -> RabbitSettings {
        RabbitSettings { allow_plaintext: true, ..RabbitSettings::new(url) }
    }

    #[test]
    fn plain_text_stays_on_this_machine_unless_allowed_by_name() {
        for host in
            ["127.0.0.1", "127.8.9.1:5", "localhost", "LocalHost:5", "[::1]", "[::ffff:127.0.0.1]"]
        {
            let url = format!("amqp://u:s3cret@{host}/v");
            Address::parse(&RabbitSettings::new(&url)).expect(host);
        }
        for host in [
            "broker",
            "10.0.0.1",
            "127.0.0.1.evil.example",
            "localhost.example",
            "[2001:db8::1]",
            "127.1",
            "0.0.0.0",
        ] {
            let url = format!("amqp://u:s3cret@{host}/v");
            let error = Address::parse(&RabbitSettings::new(&url)).expect_err(host);
            let text = format!("{error} {error:?} {:?}", RabbitSettings::new(&url));
            assert!(error.needs_operator(), "{text}");
            assert!(text.contains("allow_plaintext") && text.contains("amqps://"), "{text}");
            assert!(!text.contains("s3cret"), "{text}");
            Address::parse(&allowing(&url)).expect("allowed by name");
        }
    }

    #[test]
    fn files_for_tls_are_not_ignored() {
        for (ca, cert, key, expected) in [
            (Some("ca"), None, None, "ca_file is ca"),
            (None, Some("c"), Some("k"), "client_cert_file is c"),
            (None, Some("c"), None, "client_key_file is not set"),
            (None, None, Some("k"), "client_cert_file is not set"),
        ] {
            let mut settings = allowing("amqp://u:s3cret@127.0.0.1/v");
            settings.ca_file = ca.map(Into::into);
            settings.client_cert_file = cert.map(Into::into);
            settings.client_key_file = key.map(Into::into);
            let error = Address::parse(&settings).expect_err(expected);
            assert!(error.to_string().contains(expected), "{error}");
            assert!(error.needs_operator() && !format!("{error:?}").contains("s3cret"), "{error}");
        }
    }
}
