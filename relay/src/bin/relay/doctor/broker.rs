use anyhow::Result;
use transport::rabbitmq::RabbitMq;
use transport::{Publisher, Subscriber, Topology, Unavailable};

use super::finding::Findings;
use crate::config::Config;

/// Logs in as the relay does and looks up each exchange passively, which needs no right.
pub(super) fn look(config: &Config, exchanges: &[String], findings: &mut Findings) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let settings = match crate::broker::broker(config) {
            Ok(settings) => settings,
            Err(error) => {
                let remedy = "name the broker".to_owned();
                findings.fail("broker", format!("{error:#}"), remedy);
                return Ok(());
            }
        };
        let broker = match RabbitMq::new(&settings) {
            Ok(broker) => broker,
            Err(error) => {
                unavailable(&error, findings);
                return Ok(());
            }
        };
        match broker.open_lane().await {
            Ok(lane) => {
                drop(lane);
                findings.ok("broker", "the login works, and channels can be opened".to_owned());
                each(&broker, exchanges, findings).await;
            }
            Err(error) => unavailable(&error, findings),
        }
        Publisher::close(&broker).await;
        Subscriber::close(&broker).await;
        Ok(())
    })
}

fn unavailable(error: &Unavailable, findings: &mut Findings) {
    let remedy = if error.needs_operator() {
        "correct [broker] in the settings, or the user's rights at the broker"
    } else {
        "start the broker, or correct host and port; the relay waits for it and loses nothing"
    };
    findings.fail("broker", error.to_string(), remedy.to_owned());
}

async fn each(broker: &RabbitMq, exchanges: &[String], findings: &mut Findings) {
    let mut there = 0;
    for exchange in exchanges {
        match broker.exchange_exists(exchange).await {
            Ok(true) => there += 1,
            Ok(false) => findings.fail(
                "topology",
                format!("messages go to the exchange {exchange:?}, which does not exist"),
                "let the service that owns it declare it; `relay holds try-now --held-for exchange_missing` then tries what is held".to_owned(),
            ),
            Err(error) => {
                let remedy = "see what the broker's log says".to_owned();
                findings.warn("topology", format!("exchange {exchange:?}: {error}"), remedy);
            }
        }
    }
    if exchanges.is_empty() {
        findings.ok(
            "topology",
            "no message is pending or held, so no exchange was looked up".to_owned(),
        );
    } else if there == exchanges.len() {
        findings
            .ok("topology", format!("all {there} exchanges of pending and held messages exist"));
    }
}
