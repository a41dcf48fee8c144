use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde::Deserialize;
use transport::rabbitmq::RabbitSettings;

use crate::config::{Config, Secret, address, duration, secret};
use crate::database::place;

/// The section `[broker]` of the settings file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Broker {
    pub(crate) url: Option<Secret>,
    pub(crate) url_file: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) client_cert_file: Option<PathBuf>,
    pub(crate) client_key_file: Option<PathBuf>,
    pub(crate) allow_plaintext: Option<bool>,
    #[serde(with = "humantime_serde")]
    pub(crate) heartbeat: Option<Duration>,
    #[serde(with = "humantime_serde")]
    pub(crate) connect_timeout: Option<Duration>,
    #[serde(with = "humantime_serde")]
    pub(crate) publish_timeout: Option<Duration>,
    #[serde(with = "humantime_serde")]
    pub(crate) blocked_timeout: Option<Duration>,
    pub(crate) window: Option<usize>,
}

/// Flags over it, each with its environment variable.
#[derive(Args, Clone, Debug)]
pub(crate) struct BrokerOverrides {
    /// Broker: amqps://user:password@host:port/vhost, or amqp:// on this machine.
    #[arg(long, global = true, env = "RELAY_AMQP_URL", hide_env_values = true, value_parser = secret)]
    amqp_url: Option<Secret>,
    /// File that holds the broker address.
    #[arg(long, global = true, env = "RELAY_AMQP_URL_FILE")]
    amqp_url_file: Option<PathBuf>,
    /// Authorities that may vouch for the broker, as PEM [default: the system's].
    #[arg(long, global = true, env = "RELAY_BROKER_CA_FILE")]
    broker_ca_file: Option<PathBuf>,
    /// Our certificate to the broker, as PEM.
    #[arg(long, global = true, env = "RELAY_BROKER_CLIENT_CERT_FILE")]
    broker_client_cert_file: Option<PathBuf>,
    /// The private key of that certificate, as PEM.
    #[arg(long, global = true, env = "RELAY_BROKER_CLIENT_KEY_FILE")]
    broker_client_key_file: Option<PathBuf>,
    /// Let amqp:// (plain text) leave this machine [default: false].
    #[arg(long, global = true, env = "RELAY_ALLOW_PLAINTEXT_BROKER", num_args = 0..=1, default_missing_value = "true")]
    allow_plaintext_broker: Option<bool>,
    /// Broker heartbeat; the lease must be more than two [default: 5s].
    #[arg(long, global = true, env = "RELAY_HEARTBEAT", value_parser = duration)]
    heartbeat: Option<Duration>,
    /// Longest silence while publishing; less than the lease [default: 10s].
    #[arg(long, global = true, env = "RELAY_PUBLISH_TIMEOUT", value_parser = duration)]
    publish_timeout: Option<Duration>,
    /// Longest wait while the broker blocks publishing over an alarm [default: 5m].
    #[arg(long, global = true, env = "RELAY_BLOCKED_TIMEOUT", value_parser = duration)]
    blocked_timeout: Option<Duration>,
}

impl BrokerOverrides {
    /// Lays what was given over what the file says.
    pub(crate) fn over(self, broker: &mut Broker) -> Result<()> {
        address(&mut broker.url, broker.url_file.take(), self.amqp_url, self.amqp_url_file)?;
        place(&mut broker.ca_file, self.broker_ca_file);
        place(&mut broker.client_cert_file, self.broker_client_cert_file);
        place(&mut broker.client_key_file, self.broker_client_key_file);
        place(&mut broker.allow_plaintext, self.allow_plaintext_broker);
        place(&mut broker.heartbeat, self.heartbeat);
        place(&mut broker.publish_timeout, self.publish_timeout);
        place(&mut broker.blocked_timeout, self.blocked_timeout);
        Ok(())
    }
}

/// What the relay connects with.
pub(crate) fn broker(config: &Config) -> Result<RabbitSettings> {
    let part = &config.broker;
    let url = part.url.as_ref().context(
        "no broker named; set RELAY_AMQP_URL, --amqp-url or [broker] url in the settings file",
    )?;
    let mut settings = RabbitSettings::new(url.reveal());
    "counterfoil-relay".clone_into(&mut settings.connection_name);
    settings.ca_file.clone_from(&part.ca_file);
    settings.client_cert_file.clone_from(&part.client_cert_file);
    settings.client_key_file.clone_from(&part.client_key_file);
    settings.allow_plaintext = part.allow_plaintext.unwrap_or(settings.allow_plaintext);
    settings.heartbeat = part.heartbeat.unwrap_or(settings.heartbeat);
    settings.connect_timeout = part.connect_timeout.unwrap_or(settings.connect_timeout);
    settings.publish_timeout = part.publish_timeout.unwrap_or(settings.publish_timeout);
    settings.blocked_timeout = part.blocked_timeout.unwrap_or(settings.blocked_timeout);
    settings.window = part.window.unwrap_or(settings.window);
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_example_says_the_defaults_of_the_broker() {
        let text = include_str!("../../../../deploy/relay.toml");
        let section = text.split("[broker]").nth(1).expect("a section");
        let section = section.split("\n[").next().expect("an end");
        // As if every setting were commented in, the addresses and files apart.
        let settings: String = section
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .filter(|line| !line.starts_with("url") && !line.contains("_file"))
            .map(|line| format!("{line}\n"))
            .collect();
        let broker: Broker = toml::from_str(&settings).expect("valid");
        let defaults = RabbitSettings::new("amqp://h");
        assert_eq!(broker.allow_plaintext, Some(defaults.allow_plaintext));
        assert_eq!(broker.heartbeat, Some(defaults.heartbeat));
        assert_eq!(broker.connect_timeout, Some(defaults.connect_timeout));
        assert_eq!(broker.publish_timeout, Some(defaults.publish_timeout));
        assert_eq!(broker.blocked_timeout, Some(defaults.blocked_timeout));
        assert_eq!(broker.window, Some(defaults.window));
        for file in ["url_file", "ca_file", "client_cert_file", "client_key_file"] {
            assert!(section.contains(file), "{file}");
        }
    }
}
