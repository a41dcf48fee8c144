use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use message::name;
use support::broker::{Corner, rabbitmq};
use support::{bounded, services};
use transport::Subscriber as _;

/// Another client, as a foreign producer has it.
pub(super) async fn foreign() -> (Connection, lapin::Channel) {
    let connection = Connection::connect(&services::amqp_url(), ConnectionProperties::default())
        .await
        .expect("connected");
    let channel = connection.create_channel().await.expect("a channel");
    (connection, channel)
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_foreign_producers_are_read_as_far_as_they_go() {
    bounded(async {
        let corner = Corner::new(rabbitmq());
        let (exchange, queue) = corner.pair().await;
        let (connection, channel) = foreign().await;
        let mut headers = FieldTable::default();
        headers.insert("count".into(), AMQPValue::LongLongInt(-7));
        headers.insert("flag".into(), AMQPValue::Boolean(true));
        headers.insert("at".into(), AMQPValue::Timestamp(1_700_000_000));
        headers.insert("raw".into(), AMQPValue::LongString(vec![b'a', 0xff].into()));
        headers.insert("list".into(), AMQPValue::FieldArray(vec![AMQPValue::LongInt(1)].into()));
        headers.insert("none".into(), AMQPValue::Void);
        let rich = BasicProperties::default()
            .with_headers(headers)
            .with_correlation_id("conversation".into())
            .with_reply_to("answers".into());
        for properties in [BasicProperties::default(), rich] {
            channel
                .basic_publish(
                    exchange.as_str().into(),
                    "ok".into(),
                    BasicPublishOptions::default(),
                    b"\xff",
                    properties,
                )
                .await
                .expect("published");
        }
        let mut subscription = corner.broker.subscribe(&queue, 10).await.expect("subscribed");
        let bare = subscription.receive().await.expect("a delivery");
        assert_eq!((&bare.message_id, &bare.kind, &bare.content_type), (&None, &None, &None));
        assert!(bare.headers.is_empty() && bare.operation_key().is_none());
        assert_eq!(bare.payload, b"\xff".as_slice());
        let rich = subscription.receive().await.expect("a delivery");
        let headers: Vec<_> = rich.headers.iter().collect();
        let expected = [
            ("at", "1700000000"),
            ("count", "-7"),
            (name::CORRELATION_ID, "conversation"),
            (name::REPLY_TO, "answers"),
            ("flag", "true"),
            ("list", "[1]"),
            ("raw", "a\u{fffd}"),
        ];
        assert_eq!(headers, expected);
        drop(subscription);
        connection.close(200, "OK".into()).await.expect("closed");
        corner.clean().await;
    })
    .await;
}
