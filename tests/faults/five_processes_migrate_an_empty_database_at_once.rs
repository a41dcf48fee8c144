//! Five sidecars start on an empty database: one migrates, the others wait, all succeed.

use std::sync::Barrier;

use support::database::Database;
use support::process::Process;

fn on(database: &Database) {
    let barrier = Barrier::new(5);
    let outputs: Vec<String> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..5)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    let mut process = Process::start(
                        "relay",
                        &["migrate"],
                        &[("RELAY_DATABASE_URL", &database.url)],
                    );
                    let status = process.finish();
                    assert!(status.success(), "{}", process.output);
                    process.output.clone()
                })
            })
            .collect();
        starting.into_iter().map(|process| process.join().expect("succeeds")).collect()
    });
    let applied = outputs.iter().filter(|output| output.contains("applied")).count();
    let current = outputs.iter().filter(|output| output.contains("is current")).count();
    assert_eq!((applied, current), (1, 4), "{outputs:?}");
}

#[test]
fn on_postgresql() {
    let database = Database::empty_postgres();
    on(&database);
    let mut conn = database.pg();
    migrations::check(&mut conn).expect("current");
    // Down and up again, as a deployment that is taken back.
    let all = migrations::applied(&mut conn).expect("stamped").len();
    assert_eq!(migrations::revert_all(&mut conn).expect("reverts").len(), all);
    assert!(matches!(migrations::check(&mut conn), Err(migrations::SchemaError::Missing)));
    assert_eq!(migrations::run(&mut conn).expect("migrates").len(), all);
}

#[test]
fn on_sqlite() {
    let database = Database::empty_sqlite();
    on(&database);
    let mut conn = database.sqlite_pool(1).get::<()>().expect("opens");
    migrations::check(&mut *conn).expect("current");
    let all = migrations::applied(&mut *conn).expect("stamped").len();
    assert_eq!(migrations::revert_all(&mut *conn).expect("reverts").len(), all);
    assert!(matches!(migrations::check(&mut *conn), Err(migrations::SchemaError::Missing)));
    assert_eq!(migrations::run(&mut *conn).expect("migrates").len(), all);
}
