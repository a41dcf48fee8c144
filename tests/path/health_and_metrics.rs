//! What a running relay says of itself over HTTP, and that what it exports is what is documented.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use serde_json::Value;
use support::broker::{Corner, rabbitmq};
use support::database::Database;
use support::node::Node;
use support::process::Process;
use support::services::amqp_url;
use support::{bounded, eventually};

struct Served {
    relay: Process,
    address: String,
}

impl Served {
    fn start(database: &str, broker: &str) -> Self {
        let env = [
            ("RELAY_DATABASE_URL", database),
            ("RELAY_AMQP_URL", broker),
            ("RELAY_LISTEN", "127.0.0.1:0"),
        ];
        let mut relay = Process::start("relay", &["run"], &env);
        relay.wait_for("listening on http://");
        let line = relay.output.lines().last().expect("just waited for");
        let from = line.find("http://").expect("an address") + "http://".len();
        let address = line[from..].split_whitespace().next().expect("an address").to_owned();
        Self { relay, address }
    }

    /// Status and body.
    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("sets");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n")
            .expect("asks");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok());
        (status.expect("a status"), body.to_owned())
    }

    fn ready(&self) -> (u16, Value) {
        let (status, body) = self.get("/readyz");
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    async fn until(&self, what: &str, holds: impl Fn(u16, &Value) -> bool) -> Value {
        eventually(what, async || {
            let (status, body) = self.ready();
            holds(status, &body)
        })
        .await;
        self.ready().1
    }
}

fn nobody() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port()
}

#[tokio::test(flavor = "multi_thread")]
async fn holder_standby_and_pause_are_told_apart() {
    bounded(async {
        let database = Database::postgres();
        let first = Served::start(&database.url, &amqp_url());
        let body =
            first.until("ready", |status, body| status == 200 && body["phase"] == "active").await;
        assert_eq!(
            (&body["degraded"], &body["broker"]),
            (&serde_json::json!([]), &"connected".into())
        );
        let second = Served::start(&database.url, &amqp_url());
        let body = second
            .until("standing by", |status, body| status == 200 && body["phase"] == "standby")
            .await;
        assert!(body["holder"].is_string(), "{body}");
        assert_eq!(first.get("/healthz").0, 200);
        assert_eq!(second.get("/elsewhere").0, 404);

        database
            .pg()
            .batch_execute(
                "UPDATE outbox_cursors SET paused_at = now(), pause_reason = 'the broker moves'",
            )
            .expect("pauses");
        let body =
            first.until("paused", |status, body| status == 200 && body["paused"].is_string()).await;
        assert!(body["degraded"].to_string().contains("the broker moves"), "{body}");

        first.relay.terminate();
        second.until("taken over", |status, body| status == 200 && body["phase"] == "active").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_while_the_broker_or_the_database_is_away() {
    bounded(async {
        let database = Database::postgres();
        let away = Served::start(&database.url, &format!("amqp://u:p@127.0.0.1:{}/", nobody()));
        let body = away
            .until("not ready", |status, body| status == 503 && body["last_error"].is_string())
            .await;
        assert!(body["degraded"].to_string().contains("cannot reach the broker"), "{body}");
        assert_eq!(away.get("/healthz").0, 200, "a restart would not help");
        assert!(away.get("/metrics").1.contains("counterfoil_relay_active{cursor=\"relay\"} 0"));

        let gone = format!("postgres://u:p@127.0.0.1:{}/db", nobody());
        let away = Served::start(&gone, &amqp_url());
        let body = away.until("not ready", |status, body| {
            status == 503 && body["degraded"].to_string().contains("cannot reach the database")
        });
        assert_eq!(body.await["ready"], false);
        assert_eq!(away.get("/healthz").0, 200);
        assert_eq!(away.get("/metrics").0, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_blocks_is_said_and_is_no_reason_to_restart() {
    bounded(async {
        let database = Database::postgres();
        let node = Node::start("");
        let served = Served::start(&database.url, &node.url());
        served.until("ready", |status, body| status == 200 && body["phase"] == "active").await;
        node.ctl(&["set_vm_memory_high_watermark", "0.0000001"]);
        // A broker tells a connection when it publishes.
        database
            .pg()
            .batch_execute(
                "INSERT INTO outbox_messages (kind, operation, exchange, payload) VALUES ('k', '1', 'amq.fanout', '')",
            )
            .expect("inserts");
        let body = served
            .until("blocked", |status, body| status == 200 && body["broker"] == "blocked")
            .await;
        let degraded = body["degraded"].to_string();
        assert!(degraded.contains("the broker takes nothing: "), "{body}");
        assert!(degraded.contains("memory"), "the broker's own reason: {body}");
        assert_eq!(served.get("/healthz").0, 200, "a restart would not help");
        let page = served.get("/metrics").1;
        let gauge = "counterfoil_relay_broker{cursor=\"relay\",state=\"blocked\"} 1";
        assert!(page.contains(gauge), "{page}");

        node.ctl(&["set_vm_memory_high_watermark", "0.4"]);
        let body = served
            .until("over", |status, body| status == 200 && body["broker"] == "connected")
            .await;
        assert!(!body["degraded"].to_string().contains("takes nothing"), "{body}");
    })
    .await;
}

/// Names with their labels, from the page.
fn exported(page: &str) -> BTreeSet<(String, BTreeSet<String>)> {
    let types: BTreeSet<(&str, &str)> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let series = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    series
        .map(|line| {
            let (name, rest) = line.split_once(['{', ' ']).expect("a name");
            let base = types.iter().map(|(base, _)| *base).find(|base| {
                name == *base
                    || ["_bucket", "_sum", "_count"]
                        .iter()
                        .any(|end| name == format!("{base}{end}"))
            });
            let labels = rest.rsplit_once('}').map_or("", |(labels, _)| labels);
            let labels = labels.split(',').filter_map(|label| label.split_once('='));
            let labels =
                labels.map(|(label, _)| label.to_owned()).filter(|label| label != "le").collect();
            (base.unwrap_or(name).to_owned(), labels)
        })
        .collect()
}

const DOCUMENT: &str = include_str!("../../docs/metrics.md");

/// Names with their further labels, from the tables of the document.
fn documented(prefix: &str, common: &str) -> BTreeSet<(String, BTreeSet<String>)> {
    let rows = DOCUMENT.lines().filter(|line| line.starts_with(&format!("| `{prefix}")));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let further = cells[3].split(',').map(|label| label.trim().trim_matches('`'));
        let labels = further.filter(|label| !label.is_empty()).chain([common]).map(str::to_owned);
        (cells[1].trim_matches('`').to_owned(), labels.collect())
    })
    .collect()
}

fn names_in(source: &str) -> BTreeSet<String> {
    let literals = source.split('"').skip(1).step_by(2);
    literals.filter(|text| text.starts_with("counterfoil_")).map(str::to_owned).collect()
}

#[test]
fn every_name_in_the_sources_is_documented_and_no_other() {
    for (prefix, label, source) in [
        ("counterfoil_relay_", "cursor", include_str!("../../relay/src/telemetry.rs")),
        ("counterfoil_inbox_", "consumer", include_str!("../../inbox/src/telemetry.rs")),
        ("counterfoil_http_", "policy", include_str!("../../inbox/src/http/telemetry.rs")),
        ("counterfoil_transport_", "role", include_str!("../../transport/src/telemetry.rs")),
    ] {
        let documented: BTreeSet<String> =
            documented(prefix, label).into_iter().map(|row| row.0).collect();
        assert_eq!(documented, names_in(source));
    }
}

/// All series of the relay are there from the start, at zero: nothing has to be provoked.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_program_exports_is_what_is_documented() {
    bounded(async {
        let corner = Corner::new(rabbitmq());
        let (exchange, _) = corner.pair().await;
        let database = Database::postgres();
        database
            .pg()
            .batch_execute(&format!(
                "INSERT INTO outbox_messages (kind, operation, exchange, routing_key, payload)
                 SELECT 'ok', n::text, '{exchange}', CASE n WHEN 1 THEN 'ok' ELSE 'nowhere' END, '' FROM generate_series(1, 2) n"
            ))
            .expect("inserts");
        let served = Served::start(&database.url, &amqp_url());
        eventually("both are counted", async || {
            let page = served.get("/metrics").1;
            page.contains("counterfoil_relay_confirmed_total{cursor=\"relay\"} 1")
                && page.contains("counterfoil_relay_returned_total{cursor=\"relay\"} 1")
                && page.contains("counterfoil_relay_figures_age_seconds")
        })
        .await;
        let page = served.get("/metrics").1;
        let of_relay = |all: BTreeSet<(String, BTreeSet<String>)>| -> BTreeSet<_> {
            all.into_iter().filter(|(name, _)| name.starts_with("counterfoil_relay_")).collect()
        };
        assert_eq!(of_relay(exported(&page)), documented("counterfoil_relay_", "cursor"));
        // Of the connection, what has happened.
        let transport = documented("counterfoil_transport_", "role");
        let seen = exported(&page);
        let seen: Vec<_> = seen.iter().filter(|row| row.0.starts_with("counterfoil_transport_")).collect();
        assert!(!seen.is_empty() && seen.iter().all(|row| transport.contains(*row)), "{page}");
        assert!(page.contains("counterfoil_relay_commit_to_confirm_seconds_bucket"), "{page}");
        corner.clean().await;
    })
    .await;
}
