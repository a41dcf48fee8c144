//! The tables beside those of the host, whoever runs the files.

use diesel::connection::SimpleConnection;
use diesel::migration::MigrationSource;
use diesel::{PgConnection, RunQueryDsl, sql_query};
use diesel_migrations::MigrationHarness;
use support::database::Database;

/// The host's own migrations, as far as diesel is concerned.
struct Hosts;

impl MigrationSource<diesel::pg::Pg> for Hosts {
    fn migrations(
        &self,
    ) -> diesel::migration::Result<Vec<Box<dyn diesel::migration::Migration<diesel::pg::Pg>>>> {
        migrations::POSTGRES.migrations()
    }
}

#[test]
fn the_host_s_diesel_harness_leaves_the_same_record() {
    let database = Database::empty_postgres();
    let mut conn = database.pg();
    let run = conn.run_pending_migrations(Hosts).expect("migrates").len();
    assert_eq!(run, migrations::applied(&mut conn).expect("stamped").len());
    migrations::check(&mut conn).expect("current");
    assert_eq!(migrations::run(&mut conn).expect("nothing to do"), Vec::<String>::new());
    conn.revert_all_migrations(Hosts).expect("reverts");
    assert!(matches!(migrations::check(&mut conn), Err(migrations::SchemaError::Missing)));
}

#[test]
fn an_empty_file_is_opened_by_many_at_once() {
    for _ in 0..20 {
        let database = Database::empty_sqlite();
        let barrier = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    drop(database.sqlite_pool(1));
                });
            }
        });
    }
}

#[test]
fn a_host_with_migrations_of_its_own_keeps_them() {
    let database = Database::empty_postgres();
    let mut conn = database.pg();
    conn.batch_execute(
        "CREATE TABLE __diesel_schema_migrations (version varchar(50) PRIMARY KEY, run_on timestamp DEFAULT now());
         INSERT INTO __diesel_schema_migrations (version) VALUES ('20200101000000');
         CREATE TABLE orders (id bigint PRIMARY KEY)",
    )
    .expect("the host's tables");
    migrations::run(&mut conn).expect("migrates");
    migrations::revert_all(&mut conn).expect("reverts");
    let left = sql_query("SELECT version FROM __diesel_schema_migrations")
        .execute(&mut conn)
        .expect("reads");
    assert_eq!(left, 1);
    sql_query("SELECT id FROM orders").execute(&mut conn).expect("is there");
}

#[test]
fn a_schema_of_its_own_is_where_the_search_path_leads() {
    let database = Database::empty_postgres();
    let mut conn: PgConnection = database.pg();
    conn.batch_execute("CREATE SCHEMA messaging; SET search_path TO messaging").expect("a schema");
    migrations::run(&mut conn).expect("migrates");
    // The function finds its tables whatever path its caller has.
    conn.batch_execute(
        "SET search_path TO public; SELECT messaging.outbox_enqueue('k', 'o', '{}')",
    )
    .expect("enqueues");
    assert!(matches!(migrations::check(&mut conn), Err(migrations::SchemaError::Missing)));
    let found =
        sql_query("SELECT id FROM messaging.outbox_messages").execute(&mut conn).expect("reads");
    assert_eq!(found, 1);
}
