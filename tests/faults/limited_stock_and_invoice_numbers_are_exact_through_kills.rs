//! Three processes sell a stock that is smaller than what is ordered, under invoice numbers in sequence. A third of the
//! orders come twice, under another event id; some fail when everything is written; one process after the other is
//! killed at any moment. No item is sold that is not there, none is refused that is; every order is sold once at most; the
//! numbers are those from 1 on, without a gap or a repeat, and each is told once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use diesel::sql_types::Text;
use diesel::{PgConnection, QueryableByName, RunQueryDsl, sql_query};
use inbox::testing::assert_applied_once;
use message::{Event, OperationKey};
use support::broker::{Corner, rabbitmq};
use support::consumers::{Consumers, counted, reaches};
use support::database::Database;
use support::inbox::{BILLING, Store};
use support::sales::{self, Sale, remaining, sold};
use support::services::amqp_url;

const ORDERS: i64 = 900;
const KILLS: i64 = 30;
/// Of each item 449 are ordered.
const STOCK: [(&str, i64); 4] = [("lamp", 449), ("desk", 301), ("chair", 100), ("sofa", 1)];

#[tokio::test(flavor = "multi_thread")]
async fn one_by_one() {
    support::bounded(scenario("1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_batches() {
    support::bounded(scenario("16")).await;
}

async fn scenario(batch: &str) {
    let database = Database::postgres();
    let conn = &mut database.pg();
    sales::create(conn, &STOCK);
    let corner = Corner::new(rabbitmq());
    let (exchange, queue) = corner.pair().await;
    // One or three at a time, so that what is left can be less than what one order wants and enough for another.
    let orders: Vec<_> = (0..ORDERS)
        .map(|order| Sale {
            order,
            item: STOCK[usize::try_from(order % 4).expect("fits")].0.to_owned(),
            quantity: 1 + 2 * (order / 4 % 2),
        })
        .collect();
    let mut messages: Vec<_> = orders.iter().map(|order| order.message(&exchange)).collect();
    messages.extend(orders.iter().step_by(3).map(|order| order.message(&exchange)));
    fastrand::shuffle(&mut messages);
    corner.publish(&messages).await;

    let given = [&*database.url, &queue, batch, "any"];
    let mut consumers = Consumers::start(3, &given, &amqp_url());
    let answered = "SELECT count(*) AS count FROM inbox_operations WHERE result IS NOT NULL";
    for kill in 1..=KILLS {
        reaches(conn, answered, ORDERS * kill / (KILLS + 2)).await;
        // A moment at random; nothing waits for it.
        std::thread::sleep(Duration::from_micros(fastrand::u64(..20_000)));
        consumers.kill_any();
    }
    reaches(conn, answered, ORDERS).await;
    // The other message of an order may have been quicker than the retry that a killed process had leased.
    reaches(conn, "SELECT -count(*) AS count FROM inbox_parked", 0).await;
    support::eventually("everything is acknowledged", async || corner.depth(&queue).await == 0)
        .await;
    let told = consumers.stop();
    println!("{:?}", counted(&told));
    assert!(counted(&told)["failed"] > 0, "nothing was ever undone");
    assert!(counted(&told)["duplicate"] > 0, "nothing ever came twice");

    agrees(conn, &orders);
    assert_eq!(PgConnection::parked(conn), []);
    assert_eq!(PgConnection::starts(conn), 0);
    corner.clean().await;
}

fn agrees(conn: &mut PgConnection, orders: &[Sale]) {
    let sold = sold(conn);
    let numbers: Vec<_> = sold.iter().map(|sale| sale.number).collect();
    let last = i64::try_from(sold.len()).expect("fits");
    assert_eq!(numbers, (1..=last).collect::<Vec<_>>());
    let once: BTreeMap<_, _> = sold.iter().map(|sale| (sale.order, sale)).collect();
    assert_eq!(once.len(), sold.len(), "an order was sold twice: {sold:?}");

    let remaining = remaining(conn);
    for (item, had) in STOCK {
        let left = remaining[item];
        let of_item = sold.iter().filter(|sale| sale.item == item);
        let quantity: i64 = of_item.map(|sale| sale.quantity).sum();
        assert!(left >= 0 && quantity + left == had, "{item}: {quantity} and {left} of {had}");
    }
    for order in orders {
        let left = remaining[&order.item];
        match once.get(&order.order) {
            Some(sale) => {
                assert_eq!((&sale.item, sale.quantity), (&order.item, order.quantity));
            }
            // The stock only falls: what is left now was there when it was refused.
            None => assert!(order.quantity > left, "{order:?} with {left} left"),
        }
    }

    let told: Vec<Enqueued> =
        sql_query("SELECT operation FROM outbox_messages").load(conn).expect("reads");
    let different: BTreeSet<_> = told.iter().map(|told| told.operation.clone()).collect();
    assert_eq!(told.len(), sold.len(), "an invoice was told twice or not at all");
    assert_eq!(different, once.keys().map(|order| format!("order-{order}")).collect());
    // A repeat is answered with what the first came to.
    for order in orders {
        let key = OperationKey::new(Sale::KIND, order.operation()).expect("valid");
        let kept = assert_applied_once(conn, BILLING, &key);
        let number = once.get(&order.order).map_or(0, |sale| sale.number);
        assert_eq!(kept.result, Some(number.to_string()), "{order:?}");
    }
}

#[derive(QueryableByName)]
struct Enqueued {
    #[diesel(sql_type = Text)]
    operation: String,
}
