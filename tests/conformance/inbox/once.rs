//! One transaction after the other.

use std::time::{Duration, SystemTime};

use diesel::result::Error;
use inbox::{Consumer, Once, OnceError, Outcome};
use message::{Fingerprint, OperationKey};
use support::inbox::{BILLING, Payment, Store};

use super::on_both;

on_both!(
    the_first_applies_and_a_duplicate_gets_the_original_result,
    outside_a_transaction_it_refuses_and_claims_nothing,
    the_same_key_with_other_content_is_a_conflict,
    a_result_of_nothing_is_kept_as_null,
    a_rollback_frees_the_key_and_takes_the_effect_along,
    a_swallowed_failure_leaves_the_operation_free,
    consumers_scopes_and_ids_do_not_meet,
    a_handler_s_own_error_passes_through,
    a_key_that_breaks_the_rules_reaches_no_database,
    a_missing_table_is_named,
    a_stored_result_of_another_type_is_told_from_a_new_operation,
    any_text_survives_in_result_and_message_id,
    repeats_are_counted_each_under_its_name,
);

fn fingerprint(content: &str) -> Fingerprint {
    Fingerprint::of_bytes(content.as_bytes())
}

/// Credits 50 once; how often the handler ran is what the ledger shows.
fn credit<C: Store>(
    conn: &mut C,
    payment: &str,
    content: &str,
    id: &str,
    receipt: &str,
) -> Outcome<String> {
    let (key, fingerprint) = (Payment::key(payment), fingerprint(content));
    conn.write(|tx| {
        Once::new(BILLING, &key, &fingerprint).message_id(id).run(tx, |tx| {
            C::credit(tx, "a", 50)?;
            Ok::<_, Error>(receipt.to_owned())
        })
    })
    .expect("no error")
}

async fn the_first_applies_and_a_duplicate_gets_the_original_result<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    assert_eq!(credit(conn, "p1", "50", "m1", "one"), Outcome::Applied("one".into()));
    assert_eq!(credit(conn, "p1", "50", "m1", "two"), Outcome::Duplicate("one".into()));
    // The same fact under another message id is the same operation.
    assert_eq!(credit(conn, "p1", "50", "m2", "three"), Outcome::Duplicate("one".into()));
    assert_eq!(credit(conn, "p2", "50", "m3", "four"), Outcome::Applied("four".into()));
    assert_eq!(C::credits(conn, "a"), [50, 50]);
    let row = C::stored(conn, "p1").expect("stored");
    assert_eq!(row.message_id.as_deref(), Some("m1"));
    assert_eq!(row.result.as_deref(), Some("\"one\""));
    assert_eq!(row.fingerprint, fingerprint("50"));
    assert_eq!((row.duplicates, row.conflicts, row.last_conflict_at), (2, 0, None));
    let age = SystemTime::now().duration_since(row.applied_at).unwrap_or_default();
    assert!(age < Duration::from_secs(120), "{age:?}");
    assert!(row.last_duplicate_at.is_some_and(|at| at >= row.applied_at));
}

async fn outside_a_transaction_it_refuses_and_claims_nothing<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    let mut ran = false;
    let refused: Result<Outcome<()>, OnceError> =
        inbox::once(conn, BILLING, &Payment::key("p1"), &fingerprint(""), |_| {
            ran = true;
            Ok(())
        });
    assert!(matches!(refused, Err(OnceError::NoTransaction)), "{refused:?}");
    assert!(!ran);
    assert_eq!(C::stored(conn, "p1"), None);
}

async fn the_same_key_with_other_content_is_a_conflict<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    assert_eq!(credit(conn, "p1", "50", "m1", "one"), Outcome::Applied("one".into()));
    let Outcome::Conflict { first_seen, first_message_id, .. } =
        credit(conn, "p1", "99", "m2", "two")
    else {
        panic!("not a conflict");
    };
    assert_eq!(first_message_id.as_deref(), Some("m1"));
    assert_eq!(C::credits(conn, "a"), [50]);
    let row = C::stored(conn, "p1").expect("stored");
    assert_eq!(row.applied_at, first_seen);
    assert_eq!((row.duplicates, row.last_duplicate_at, row.conflicts), (0, None, 1));
    assert!(row.last_conflict_at.is_some());
    // Neither content nor result was overwritten.
    assert_eq!(row.fingerprint, fingerprint("50"));
    assert_eq!(credit(conn, "p1", "50", "m3", "three"), Outcome::Duplicate("one".into()));
}

async fn a_result_of_nothing_is_kept_as_null<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    let (key, fingerprint) = (Payment::key("p1"), fingerprint(""));
    let mut nothing = || {
        conn.write(|tx| inbox::once(tx, BILLING, &key, &fingerprint, |_| Ok::<_, Error>(())))
            .expect("no error")
    };
    assert_eq!(nothing(), Outcome::Applied(()));
    assert_eq!(nothing(), Outcome::Duplicate(()));
    assert_eq!(C::stored(conn, "p1").expect("stored").result, None);
}

async fn a_rollback_frees_the_key_and_takes_the_effect_along<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    let (key, fingerprint) = (Payment::key("p1"), fingerprint("50"));
    let rolled_back: Result<Outcome<()>, Error> = conn.write(|tx| {
        let applied = inbox::once(tx, BILLING, &key, &fingerprint, |tx| C::credit(tx, "a", 50))?;
        assert_eq!(applied, Outcome::Applied(()));
        Err(Error::RollbackTransaction)
    });
    assert_eq!(rolled_back, Err(Error::RollbackTransaction));
    assert_eq!((C::stored(conn, "p1"), C::credits(conn, "a")), (None, vec![]));
    assert_eq!(credit(conn, "p1", "50", "m1", "one"), Outcome::Applied("one".into()));
}

async fn a_swallowed_failure_leaves_the_operation_free<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    let (key, fingerprint) = (Payment::key("p1"), fingerprint("50"));
    conn.write(|tx| {
        let failed: Result<Outcome<()>, Error> =
            inbox::once(tx, BILLING, &key, &fingerprint, |_| Err(Error::NotFound));
        assert_eq!(failed, Err(Error::NotFound));
        Ok::<_, Error>(())
    })
    .expect("commits all the same");
    assert_eq!(credit(conn, "p1", "50", "m1", "one"), Outcome::Applied("one".into()));
}

async fn consumers_scopes_and_ids_do_not_meet<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    let fingerprint = fingerprint("");
    for (consumer, scope, id) in [
        ("c", "s", "i"),
        ("d", "s", "i"),
        ("c", "t", "i"),
        ("c", "s", "j"),
        ("c", "si", "x"),
        ("cs", "i", "x"),
    ] {
        let key = OperationKey::new(scope, id).expect("valid");
        let outcome = conn
            .write(|tx| {
                inbox::once(tx, Consumer(consumer), &key, &fingerprint, |_| Ok::<_, Error>(()))
            })
            .expect("no error");
        assert_eq!(outcome, Outcome::Applied(()), "{consumer} {scope} {id}");
    }
}

async fn a_handler_s_own_error_passes_through<C: Store>() {
    #[derive(Debug, thiserror::Error)]
    enum Business {
        #[error("overdrawn by {0}")]
        Overdrawn(i64),
        #[error(transparent)]
        Once(#[from] OnceError),
        #[error(transparent)]
        Database(#[from] Error),
    }
    let database = C::database();
    let conn = &mut C::connection(&database);
    let (key, fingerprint) = (Payment::key("p1"), fingerprint(""));
    let failed = conn.write(|tx| {
        inbox::once(tx, BILLING, &key, &fingerprint, |tx| {
            C::credit(tx, "a", 50)?;
            if C::credits(tx, "a") == [50] { Err(Business::Overdrawn(7)) } else { Ok(()) }
        })
    });
    assert!(matches!(failed, Err(Business::Overdrawn(7))), "{failed:?}");
    let refused: Result<Outcome<()>, Business> =
        inbox::once(conn, BILLING, &key, &fingerprint, |_| Ok(()));
    assert!(matches!(refused, Err(Business::Once(OnceError::NoTransaction))));
}

async fn a_key_that_breaks_the_rules_reaches_no_database<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    // A foreign message's key is built unchecked.
    let mut message = Payment::new("p1", 50).message();
    message.operation = "nul\0".into();
    let good = Payment::key("p1");
    for (consumer, key) in [(BILLING, &message.operation_key()), (Consumer(""), &good)] {
        let refused: Result<Outcome<()>, OnceError> = conn
            .write(|tx| {
                Ok::<_, Error>(inbox::once(tx, consumer, key, &fingerprint(""), |_| Ok(())))
            })
            .expect("the transaction is fine");
        assert!(matches!(refused, Err(OnceError::Invalid(_))), "{refused:?}");
    }
}

async fn a_missing_table_is_named<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    conn.batch_execute("DROP TABLE inbox_operations").expect("drops");
    let failed: Result<(), OnceError> = conn.write(|tx| {
        inbox::once(tx, BILLING, &Payment::key("p1"), &fingerprint(""), |_| Ok(())).map(drop)
    });
    let error = failed.expect_err("no table");
    assert!(
        matches!(error, OnceError::MissingTable(_)) && error.to_string().contains("relay migrate"),
        "{error}"
    );
}

async fn a_stored_result_of_another_type_is_told_from_a_new_operation<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    assert_eq!(credit(conn, "p1", "50", "m1", "one"), Outcome::Applied("one".into()));
    let failed: Result<Outcome<i64>, OnceError> = conn
        .write(|tx| inbox::once(tx, BILLING, &Payment::key("p1"), &fingerprint("50"), |_| Ok(1)));
    assert!(matches!(failed, Err(OnceError::UnreadableResult(_))), "{failed:?}");
    assert_eq!(C::credits(conn, "a"), [50]);
}

async fn any_text_survives_in_result_and_message_id<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    let receipt = "nul \0, quote ', line\n, \u{1f600}";
    assert_eq!(credit(conn, "p1", "50", "m\0", receipt), Outcome::Applied(receipt.into()));
    assert_eq!(credit(conn, "p1", "50", "m\0", "other"), Outcome::Duplicate(receipt.into()));
    assert_eq!(C::stored(conn, "p1").expect("stored").message_id.as_deref(), Some("m\u{2400}"));
}

async fn repeats_are_counted_each_under_its_name<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    for (content, id) in
        [("50", "m1"), ("99", "m2"), ("50", "m3"), ("98", "m4"), ("99", "m5"), ("50", "m6")]
    {
        let _ = credit(conn, "p1", content, id, "one");
    }
    let row = C::stored(conn, "p1").expect("stored");
    assert_eq!((row.duplicates, row.conflicts), (2, 3));
    assert!(row.last_duplicate_at >= row.last_conflict_at);
}
