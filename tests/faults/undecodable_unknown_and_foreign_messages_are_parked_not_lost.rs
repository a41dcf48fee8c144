//! Whatever a foreign producer sends is acknowledged only once it is kept, whole, with a reason.

use std::collections::BTreeMap;
use std::sync::Arc;

use diesel::{PgConnection, SqliteConnection};
use inbox::Reason;
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use message::name;
use support::broker::{Corner, rabbitmq};
use support::feed::{Answer, Feed};
use support::inbox::{Running, Store, crediting, parked};
use transport::Delivery;

const GOOD: &[u8] = br#"{"payment":"p1","account":"a","cents":50}"#;

/// A message nobody can apply.
struct Bad {
    what: &'static str,
    reason: Reason,
    kind: Option<&'static str>,
    headers: &'static [(&'static str, &'static str)],
    payload: &'static [u8],
}

const fn bad(what: &'static str, reason: Reason, payload: &'static [u8]) -> Bad {
    Bad { what, reason, kind: Some("payment.succeeded"), headers: &[], payload }
}

fn all() -> Vec<Bad> {
    let version = |text| -> &'static [(&'static str, &'static str)] {
        match text {
            "99" => &[(name::SCHEMA_VERSION, "99")],
            "0" => &[(name::SCHEMA_VERSION, "0")],
            _ => &[(name::SCHEMA_VERSION, "two")],
        }
    };
    vec![
        bad("zero bytes", Reason::Undecodable, b""),
        bad("not UTF-8", Reason::Undecodable, b"{\"payment\":\"\xff\"}"),
        bad("not JSON", Reason::Undecodable, b"{\"payment\":"),
        bad("another shape", Reason::Undecodable, b"[1,2,3]"),
        bad("NUL bytes", Reason::Undecodable, b"\0\0\0"),
        bad("no operation", Reason::NoOperation, br#"{"payment":"","account":"a","cents":50}"#),
        bad(
            "control characters",
            Reason::NoOperation,
            br#"{"payment":"p\u0000","account":"a","cents":50}"#,
        ),
        Bad { headers: version("99"), ..bad("version 99", Reason::UnknownVersion, GOOD) },
        Bad { headers: version("0"), ..bad("version 0", Reason::UnknownVersion, GOOD) },
        Bad { headers: version("two"), ..bad("version two", Reason::UnknownVersion, GOOD) },
        Bad { kind: None, ..bad("no kind", Reason::UnknownKind, GOOD) },
        Bad { kind: Some("payment\0"), ..bad("NUL in the kind", Reason::UnknownKind, GOOD) },
        Bad { headers: &[("nul\0", "v\0")], ..bad("NUL in a header", Reason::Undecodable, b"x") },
    ]
}

/// Reasons and payloads of what is parked, each once.
fn check<C: Store>(conn: &mut C) {
    let expected: Vec<_> =
        all().iter().map(|bad| (bad.reason.as_str(), bad.payload.to_vec())).collect();
    let rows = C::parked(conn);
    let mut found: Vec<_> =
        rows.iter().map(|row| (row.reason.as_str(), row.payload.to_vec())).collect();
    let mut wanted = expected;
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted);
    assert!(rows.iter().all(|row| row.deliveries == 1 && !row.detail.is_empty()));
    let nul = rows
        .iter()
        .find(|row| row.headers.get("nul\u{2400}").is_some())
        .expect("the NUL header is kept");
    assert_eq!(nul.headers.get("nul\u{2400}"), Some("v\u{2400}"));
    assert!(rows.iter().any(|row| row.kind.as_deref() == Some("payment\u{2400}")));
    assert!(C::credits(conn, "a").is_empty());
}

async fn by_hand<C: Store>() {
    let database = C::database();
    let feed = Feed::new();
    let mut running =
        Running::start(crediting::<C>(C::pool(&database), Arc::new(feed.clone()), "q"));
    for message in all() {
        let number = feed.deliver_raw(|delivery: &mut Delivery| {
            delivery.message_id = Some(format!("{}\0", message.what));
            delivery.kind = message.kind.map(str::to_owned);
            delivery.headers =
                message.headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            delivery.payload = message.payload.into();
        });
        assert_eq!(running.next().await.ending, parked(message.reason), "{}", message.what);
        assert_eq!(feed.answer(number), Some(Answer::Ack), "{}", message.what);
    }
    check(&mut C::connection(&database));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn into_postgres() {
    support::bounded(by_hand::<PgConnection>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn into_sqlite() {
    support::bounded(by_hand::<SqliteConnection>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn from_a_foreign_client_over_rabbitmq() {
    support::bounded(async {
        let database = PgConnection::database();
        let corner = Corner::new(rabbitmq());
        let (exchange, queue) = corner.pair().await;
        let url = support::services::amqp_url();
        let foreign = lapin::Connection::connect(&url, Default::default()).await.expect("connects");
        let channel = foreign.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let mut expected = BTreeMap::new();
        for message in all() {
            let mut headers = FieldTable::default();
            for (name, value) in message.headers {
                headers.insert((*name).into(), AMQPValue::LongString((*value).into()));
            }
            let mut properties = BasicProperties::default().with_headers(headers);
            if let Some(kind) = message.kind {
                properties = properties.with_type(kind.into());
            }
            let (to, options) = (exchange.as_str().into(), BasicPublishOptions::default());
            let confirm =
                channel.basic_publish(to, "ok".into(), options, message.payload, properties);
            confirm.await.expect("written").await.expect("confirmed");
            *expected.entry(message.reason.as_str()).or_insert(0) += 1;
        }
        let inbox =
            crediting(PgConnection::pool(&database), Arc::new(corner.broker.clone()), &queue);
        let mut running = Running::start(inbox);
        let mut found = BTreeMap::new();
        for ending in running.endings(all().len()).await {
            *found.entry(ending.as_str()).or_insert(0) += 1;
        }
        assert_eq!(found, expected);
        check(&mut PgConnection::connection(&database));
        assert_eq!(running.stop().await, []);
        assert_eq!(corner.depth(&queue).await, 0);
        corner.clean().await;
    })
    .await;
}
