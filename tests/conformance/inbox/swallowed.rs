//! A handler that swallows a database error has lost its transaction on PostgreSQL, whose COMMIT then
//! rolls back without saying so: that must not count as applied, whatever the handler returns.

use diesel::result::Error;
use diesel::{Connection, RunQueryDsl, sql_query};
use inbox::{OnceError, Outcome};
use message::{Fingerprint, OperationKey};
use support::database::Database;
use support::inbox::BILLING;

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Once(#[from] OnceError),
    #[error(transparent)]
    Database(#[from] Error),
}

#[test]
fn an_aborted_transaction_is_not_applied() {
    let database = Database::postgres();
    let mut conn = database.pg();
    let operation = OperationKey::new("payment.succeeded", "p1").expect("valid");
    let fingerprint = Fingerprint::of_bytes(b"50");
    let outcome: Result<Outcome<()>, Failed> = conn.transaction(|tx| {
        inbox::once(tx, BILLING, &operation, &fingerprint, |tx| {
            let _ = sql_query("SELECT 1 / 0").execute(tx);
            Ok(())
        })
    });
    assert!(outcome.is_err(), "{outcome:?}");
    let again: Result<Outcome<()>, Failed> =
        conn.transaction(|tx| inbox::once(tx, BILLING, &operation, &fingerprint, |_| Ok(())));
    assert_eq!(again.expect("applies"), Outcome::Applied(()));
}
