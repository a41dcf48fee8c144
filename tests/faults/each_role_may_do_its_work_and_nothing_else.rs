//! The roles that `relay roles` makes: each party does its work with its own, and anything beyond is
//! refused by the database (42501), whoever gets hold of its password.

use std::sync::Arc;

use db::{Class, Db, classify};
use diesel::connection::SimpleConnection;
use diesel::result::Error;
use diesel::{Connection, PgConnection};
use inbox::effect::{Answer, Effects, Reconciler};
use outbox::Draft;
use outbox::reader::LogStore;
use support::broker::{Corner, rabbitmq};
use support::database::Database;
use support::effects::{CHARGE, lost, operation, pass};
use support::events::Fact;
use support::inbox::{BILLING, Running, Store};
use support::process::Process;
use support::rights::{ADMIN, CONSUMER, PRODUCER, RELAY};
use support::roles::LeastPrivileged;
use transport::{ExchangeKind, Subscriber};

#[test]
fn statement_by_statement() {
    let database = Database::postgres();
    let roles = LeastPrivileged::on(&database);
    for (party, url, rights) in [
        ("producer", &roles.producer, PRODUCER),
        ("relay", &roles.relay, RELAY),
        ("consumer", &roles.consumer, CONSUMER),
        ("admin", &roles.admin, ADMIN),
    ] {
        let mut conn = PgConnection::establish(url).expect("logs in");
        let mut attempt = |statement: &str| {
            let mut refused = None;
            let _: Result<(), Error> = conn.transaction(|tx| {
                refused = tx.batch_execute(statement).err();
                Err(Error::RollbackTransaction)
            });
            refused
        };
        for statement in rights.may {
            if let Some(error) = attempt(statement) {
                panic!("{party} may not: {error}\n{statement}");
            }
        }
        for statement in rights.may_not {
            match attempt(statement) {
                Some(error) => {
                    assert_eq!(classify(&error), Class::Denied, "{party}: {error}\n{statement}");
                }
                None => panic!("{party} may:\n{statement}"),
            }
        }
    }
}

/// The whole path, each party as its own role.
#[tokio::test(flavor = "multi_thread")]
async fn the_whole_path() {
    const FACTS: i64 = 300;
    let database = Database::postgres();
    let roles = LeastPrivileged::on(&database);
    database
        .pg()
        .batch_execute(&format!(
            "CREATE TABLE ledger (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account text NOT NULL,
                                  cents bigint NOT NULL);
             GRANT SELECT, INSERT ON ledger TO {}",
            roles.group("consumer")
        ))
        .expect("creates the business table");
    let corner = Corner::new(rabbitmq());
    let exchange = corner.exchange("facts", ExchangeKind::Direct).await;
    let queue = corner.queue("facts").await;
    corner.bind(&exchange, &queue, "ok").await;

    let env = [
        ("RELAY_DATABASE_URL", &roles.relay[..]),
        ("RELAY_AMQP_URL", &support::services::amqp_url()),
    ];
    let mut relay = Process::start("relay", &["run"], &env);
    relay.wait_for("relaying");
    let consumer =
        Db::<PgConnection>::open(&roles.consumer, db::Settings::default()).expect("opens");
    let inbox =
        inbox::Inbox::new(BILLING, consumer, Arc::new(rabbitmq()) as Arc<dyn Subscriber>, &queue)
            .on(inbox::ReplaySafe, |tx: &mut PgConnection, fact: &Fact, _| {
                if fact.number == 1 {
                    return Err(inbox::Failure::reject("parked with the consumer's rights"));
                }
                PgConnection::credit(tx, "facts", fact.number)?;
                Ok(())
            });
    let inbox = Running::start(inbox);

    let mut producer = PgConnection::establish(&roles.producer).expect("logs in");
    for number in 1..=FACTS {
        let key = format!("key-{}", number % 5);
        let draft = Draft::of(&Fact::of(&key, number)).exchange(&exchange).routing_key("ok");
        // One that nothing is bound for and a later one of its key: the relay holds both and goes on.
        let stray =
            Draft::of(&Fact::of("stray", number)).exchange(&exchange).routing_key("nowhere");
        producer
            .transaction(|tx| {
                if number % 100 == 0 {
                    stray.enqueue(tx)?;
                }
                match number % 3 {
                    0 => outbox::enqueue_all(tx, [draft]).map(drop),
                    1 => draft.serialized().enqueue(tx).map(drop),
                    _ => draft.enqueue(tx).map(drop),
                }
            })
            .expect("enqueues");
    }
    let mut owner = database.pg();
    support::eventually("all but the parked one took effect", async || {
        PgConnection::credits(&mut owner, "facts").len() as i64 == FACTS - 1
    })
    .await;
    support::eventually("the strays are held", async || {
        owner.pending("relay").expect("counts") == 0
    })
    .await;
    assert_eq!(PgConnection::parked(&mut owner).len(), 1);
    relay.terminate();
    assert!(relay.finish().success(), "{}", relay.output);
    inbox.stop().await;
    corner.clean().await;
}

#[test]
fn an_operator_decides_about_parked_messages() {
    let database = Database::postgres();
    let roles = LeastPrivileged::on(&database);
    let parked = "INSERT INTO inbox_parked (consumer, reason, detail, attempts, digest, exchange, routing_key, headers,
                                            payload, state, ordering_key)
                  VALUES ('c', 'review', 'd', 1, sha256('1'), 'e', 'r', '{}', 'p', 'review', 'k'),
                         ('c', 'behind', 'd', 0, sha256('2'), 'e', 'r', '{}', 'p', 'behind', 'k')";
    database.pg().batch_execute(parked).expect("parks");
    let env = [("RELAY_DATABASE_URL", &roles.admin[..])];
    for (args, said) in [
        (&["parked", "list"][..], "behind"),
        (&["parked", "retry", "1", "--reason", "r"], "1 parked messages were"),
        (&["parked", "discard", "1", "--reason", "r", "--yes"], "1 parked messages were"),
        (&["parked", "counts"], "retry"),
        (&["audit"], "parked.discard"),
    ] {
        let mut relay = Process::start("relay", args, &env);
        assert!(relay.finish().success(), "{args:?}: {}", relay.output);
        assert!(relay.output.contains(said), "{args:?}: {}", relay.output);
    }
}

#[tokio::test]
async fn a_consumer_keeps_its_effects_and_an_operator_decides_about_them() {
    let database = Database::postgres();
    let roles = LeastPrivileged::on(&database);
    let db = Db::<PgConnection>::connect(&roles.consumer, db::Settings::default())
        .await
        .expect("logs in");
    let effects = Effects::new(db.clone(), BILLING, &operation("o1"));
    let known = effects.once("known", async |_| Ok(7)).await.expect("performed");
    assert_eq!(effects.once("known", async |_| Ok(8)).await.expect("stored"), known);
    effects.once(CHARGE, async |_| Err::<u32, _>(lost())).await.expect_err("unknown");
    effects
        .effect("asked")
        .reconciled()
        .once(async |_| Err::<u32, _>(lost()))
        .await
        .expect_err("unknown");
    let mut owner = database.pg();
    pass(&mut owner, std::time::Duration::from_secs(3600));
    let reconciler =
        Reconciler::new(db.clone(), BILLING, Default::default()).expect("settings that can work");
    let reconciler = reconciler.ask_any(async |_| Ok(Answer::Done(5)));
    assert_eq!(reconciler.round().await.expect("asks").done, 1);
    let rows = support::effects::all(&mut owner);
    let number = rows.iter().find(|row| row.effect == CHARGE).expect("stored").id.to_string();
    let env = [("RELAY_DATABASE_URL", &roles.admin[..])];
    for (args, said) in [
        (&["effects", "list", "--in-review"][..], CHARGE),
        (&["effects", "decide", &number, "done", "--result", "5", "--reason", "r"], "is done"),
        (&["effects", "counts"], "asked"),
        (&["effects", "reconcile", "--consumer", "billing"], "billing"),
        (&["audit"], "effect.done"),
    ] {
        let mut relay = Process::start("relay", args, &env);
        assert!(relay.finish().success(), "{args:?}: {}", relay.output);
        assert!(relay.output.contains(said), "{args:?}: {}", relay.output);
    }
    assert_eq!(effects.once(CHARGE, async |_| Ok(8)).await.expect("decided"), 5);
    pass(&mut owner, std::time::Duration::from_secs(365 * 86_400));
    let retention = inbox::retention::Retention::default();
    let purge = move |conn: &mut PgConnection| {
        inbox::retention::purge(conn, BILLING, &retention, &mut Default::default())
    };
    assert_eq!(db.call(purge).await.expect("purges").effects, 3);
}

#[test]
fn a_right_too_many_is_taken_back_and_a_role_is_made_once() {
    let database = Database::postgres();
    let roles = LeastPrivileged::on(&database);
    let mut owner = database.pg();
    owner
        .batch_execute(&format!(
            "GRANT SELECT ON outbox_messages TO {}; GRANT UPDATE (name) ON outbox_cursors TO {};
             GRANT SELECT ON outbox_messages TO PUBLIC",
            roles.group("producer"),
            roles.group("relay")
        ))
        .expect("grants");
    let prefix = roles.group("x").trim_end_matches("_x").to_owned();
    let arguments = ["roles", "--prefix", &prefix, "--no-purge"];
    let env = [("RELAY_DATABASE_URL", &database.url[..])];
    let mut printed = Process::start("relay", &[&arguments[..], &["--print"]].concat(), &env);
    assert!(printed.finish().success(), "{}", printed.output);
    assert!(
        printed.output.contains(&format!("\"public\".outbox_messages TO \"{prefix}_producer\""))
    );
    PgConnection::establish(&roles.producer)
        .expect("logs in")
        .batch_execute("SELECT payload FROM outbox_messages")
        .expect("printing changes nothing");

    let mut relay = Process::start("relay", &arguments, &env);
    assert!(relay.finish().success(), "{}", relay.output);
    for (url, statement) in [
        (&roles.producer, "SELECT payload FROM outbox_messages"),
        (&roles.consumer, "SELECT payload FROM outbox_messages"),
        (&roles.relay, "UPDATE outbox_cursors SET name = 'x'"),
        (&roles.relay, "DELETE FROM outbox_messages WHERE seq < 0"),
    ] {
        let error = PgConnection::establish(url)
            .expect("logs in")
            .batch_execute(statement)
            .expect_err(statement);
        assert_eq!(classify(&error), Class::Denied, "{error}");
    }
    let mut stranger =
        Process::start("relay", &arguments, &[("RELAY_DATABASE_URL", &roles.admin[..])]);
    assert!(!stranger.finish().success());
    assert!(stranger.output.contains("as the owner of the tables"), "{}", stranger.output);
}
