//! The steps of a rebuild, in order and out of it.

use std::sync::Arc;

use inbox::rebuild::{self, By, RebuildError};
use inbox::{Consumer, Ending, Inbox, OnceError, ReplaySafe};
use message::{Fingerprint, OperationKey};
use support::feed::Feed;
use support::inbox::{BILLING, Payment, Running, Store};

use super::on_both;

on_both!(
    a_generation_is_begun_caught_up_and_switched_to,
    a_step_out_of_order_changes_nothing,
    a_number_is_never_given_out_twice,
    what_is_parked_keeps_readers_from_being_switched,
    a_generation_applies_again_and_forgetting_touches_no_other,
    a_mark_in_a_name_is_a_generation_s_only,
);

const BY: By<'static> = By { actor: "anna@desk", reason: "a new column" };

async fn a_generation_is_begun_caught_up_and_switched_to<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    assert_eq!(rebuild::active(conn, BILLING).expect("reads"), 1);
    assert_eq!(rebuild::generations(conn, BILLING).expect("reads"), None);
    for expected in [2, 3] {
        assert_eq!(rebuild::begin(conn, BILLING, BY).expect("begins"), expected);
        assert_eq!(rebuild::active(conn, BILLING).expect("reads"), expected - 1);
        rebuild::caught_up(conn, BILLING, expected, BY).expect("says so");
        let stands = rebuild::generations(conn, BILLING).expect("reads").expect("there");
        assert_eq!((stands.building, stands.active), (Some(expected), expected - 1));
        assert!(stands.caught_up_at.is_some());
        rebuild::switch(conn, BILLING, expected, BY).expect("switches");
        assert_eq!(rebuild::active(conn, BILLING).expect("reads"), expected);
        let stands = rebuild::generations(conn, BILLING).expect("reads").expect("there");
        assert_eq!((stands.building, stands.caught_up_at), (None, None));
        assert!(stands.switched_at.is_some());
    }
    // Nobody else's.
    assert_eq!(rebuild::active(conn, Consumer("shipping")).expect("reads"), 1);
    // Six steps, with who and why; any other number cannot be stored.
    conn.batch_execute(
        "INSERT INTO inbox_generations (consumer, newest) SELECT 'witness', CASE WHEN count(*) = 6 THEN 1 END
         FROM inbox_audit WHERE actor = 'anna@desk' AND reason = 'a new column' AND consumer = 'billing'",
    )
    .expect("six lines");
}

async fn a_step_out_of_order_changes_nothing<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    assert!(matches!(
        rebuild::switch(conn, BILLING, 2, BY),
        Err(RebuildError::NotBuilding { building: None, .. })
    ));
    assert!(matches!(
        rebuild::forget(conn, BILLING, 1, 10),
        Err(RebuildError::InUse { generation: 1, .. })
    ));
    assert!(matches!(
        rebuild::forget(conn, BILLING, 2, 10),
        Err(RebuildError::Unknown { newest: 1, .. })
    ));
    rebuild::begin(conn, BILLING, BY).expect("begins");
    assert!(matches!(
        rebuild::begin(conn, BILLING, BY),
        Err(RebuildError::AlreadyBuilding { generation: 2, .. })
    ));
    assert!(matches!(
        rebuild::switch(conn, BILLING, 2, BY),
        Err(RebuildError::NotCaughtUp { generation: 2, .. })
    ));
    for refused in [
        rebuild::caught_up(conn, BILLING, 3, BY),
        rebuild::switch(conn, BILLING, 1, BY),
        rebuild::abandon(conn, BILLING, 1, BY),
    ] {
        assert!(matches!(refused, Err(RebuildError::NotBuilding { building: Some(2), .. })));
    }
    assert!(matches!(rebuild::forget(conn, BILLING, 2, 10), Err(RebuildError::InUse { .. })));
    let silent = By { reason: " ", ..BY };
    assert!(matches!(rebuild::abandon(conn, BILLING, 2, silent), Err(RebuildError::NoReason)));
    assert!(matches!(
        rebuild::begin(conn, Consumer("billing#2"), BY),
        Err(RebuildError::ReservedName { .. })
    ));
    assert_eq!(rebuild::active(conn, BILLING).expect("reads"), 1);
    rebuild::caught_up(conn, BILLING, 2, BY).expect("says so");
    rebuild::switch(conn, BILLING, 2, BY).expect("switches");
    assert!(matches!(
        rebuild::switch(conn, BILLING, 2, BY),
        Err(RebuildError::NotBuilding { building: None, .. })
    ));
}

/// What an abandoned one has applied would pass for duplicates.
async fn a_number_is_never_given_out_twice<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    assert_eq!(rebuild::begin(conn, BILLING, BY).expect("begins"), 2);
    rebuild::caught_up(conn, BILLING, 2, BY).expect("says so");
    rebuild::abandon(conn, BILLING, 2, BY).expect("gives up");
    assert_eq!(rebuild::begin(conn, BILLING, BY).expect("begins"), 3);
    // Nor is it taken for caught up because the other one was.
    assert!(matches!(
        rebuild::switch(conn, BILLING, 3, BY),
        Err(RebuildError::NotCaughtUp { generation: 3, .. })
    ));
}

async fn what_is_parked_keeps_readers_from_being_switched<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    rebuild::begin(conn, BILLING, BY).expect("begins");
    let feed = Feed::new();
    let inbox = Inbox::new(BILLING, C::pool(&database), Arc::new(feed.clone()), "q")
        .on(ReplaySafe, |_: &mut C, _: &Payment, _| Ok(()))
        .generation(2);
    let mut running = Running::start(inbox);
    rebuild::caught_up(conn, BILLING, 2, BY).expect("nothing is parked");
    feed.deliver_raw(|delivery| delivery.kind = Some("unknown".into()));
    assert!(matches!(running.next().await.ending, Ending::Parked(_)));
    for refused in [rebuild::caught_up(conn, BILLING, 2, BY), rebuild::switch(conn, BILLING, 2, BY)]
    {
        match refused {
            Err(RebuildError::Parked { consumer }) => assert_eq!(consumer, "billing#2"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rebuild::active(conn, BILLING).expect("reads"), 1);
    conn.batch_execute("DELETE FROM inbox_parked").expect("an operator discards it");
    rebuild::switch(conn, BILLING, 2, BY).expect("switches");
    running.stop().await;
}

async fn a_generation_applies_again_and_forgetting_touches_no_other<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    let feed = Feed::new();
    for generation in [1, 2] {
        let inbox = Inbox::new(BILLING, C::pool(&database), Arc::new(feed.clone()), "q")
            .on(ReplaySafe, |tx: &mut C, payment: &Payment, context| {
                C::credit(tx, &format!("projection {}", context.generation()), payment.cents)?;
                Ok(())
            })
            .generation(generation);
        let mut running = Running::start(inbox);
        for expected in [Ending::Applied, Ending::Duplicate] {
            for cents in 1..=3 {
                feed.deliver(&Payment::new(&format!("p{cents}"), cents).message());
            }
            assert_eq!(running.endings(3).await, [expected; 3]);
        }
        running.stop().await;
    }
    for projection in ["projection 1", "projection 2"] {
        let mut credits = C::credits(conn, projection);
        credits.sort_unstable();
        assert_eq!(credits, [1, 2, 3]);
    }
    assert_eq!(rebuild::begin(conn, BILLING, BY).expect("begins"), 2);
    rebuild::caught_up(conn, BILLING, 2, BY).expect("says so");
    rebuild::switch(conn, BILLING, 2, BY).expect("switches");
    let batches = [2, 1, 0].map(|_| rebuild::forget(conn, BILLING, 1, 2).expect("deletes"));
    assert_eq!(batches, [2, 1, 0]);
    assert_eq!(C::stored(conn, "p1"), None);
    let (next, key) = (rebuild::name(BILLING, 2), Payment::key("p1"));
    let kept = inbox::operation(conn, Consumer(&next), &key).expect("reads").expect("there");
    assert_eq!(kept.duplicates, 1);
}

async fn a_mark_in_a_name_is_a_generation_s_only<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    let fingerprint = Fingerprint::of_payload(b"{}", &[]);
    let operation = OperationKey::new("s", "o").expect("valid");
    let mut once = |name| {
        C::write(conn, |tx| {
            inbox::once(tx, Consumer(name), &operation, &fingerprint, |_| Ok::<_, OnceError>(()))
        })
        .map(drop)
    };
    for good in ["billing", "billing#2"] {
        once(good).expect(good);
    }
    for bad in ["billing#", "billing#1", "billing#two", "#2"] {
        assert!(matches!(once(bad), Err(OnceError::ReservedName { .. })), "{bad}");
    }
}
