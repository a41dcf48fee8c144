//! The published window, and the purge.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use inbox::http::Idempotency;
use inbox::http::telemetry::TRANSACTIONS_REPEATED;
use support::http::{Server, Shopping, place, policy};
use support::recorded::Recorded;

super::on_both!(
    t24_an_expired_key_is_as_new_after_the_window_only_purged_or_not,
    t24_the_layer_s_keys_expire_alike_and_the_purge_leaves_what_is_in_progress,
    t25_purge_and_repeats_at_the_boundary_leave_an_order_per_new_run,
);

/// Makes what is stored older.
fn age<C: Shopping>(conn: &mut C, hours: u32) {
    let older = |column: &str| {
        if C::NAME == "postgres" {
            format!("{column} = {column} - {hours} * interval '1 hour'")
        } else {
            format!("{column} = {column} - {hours} * 3600000000")
        }
    };
    let statements = [
        format!("UPDATE inbox_operations SET {}", older("applied_at")),
        format!(
            "UPDATE inbox_requests SET {}, {}, {}",
            older("begun_at"),
            older("completed_at"),
            older("lease_until")
        ),
    ];
    for statement in statements {
        C::execute(conn, &statement).expect("makes it older");
    }
}

async fn t24_an_expired_key_is_as_new_after_the_window_only_purged_or_not<C: Shopping>() {
    let database = C::database();
    let (policy, conn) = (policy(), &mut C::connection(&database));
    let front = Idempotency::new(policy.clone(), C::pool(&database)).expect("a good policy");
    let shop = Server::start(policy, C::pool(&database), place::<C>).await;
    let first = shop.order("\"k\"", 5).await;
    age(conn, 23);
    assert_eq!(front.purge().await.expect("purges").operations, 0);
    assert_eq!(shop.order("\"k\"", 5).await.body, first.body);
    shop.order("\"k\"", 6).await.expect_problem(422, "mismatch");
    age(conn, 2);
    // With another body: a new key fits any request.
    let second = shop.order("\"k\"", 6).await;
    assert_eq!((second.status, second.is_replayed()), (201, false));
    assert_ne!(second.body, first.body);
    assert_eq!(shop.order("\"k\"", 6).await.body, second.body);
    assert_eq!(C::credits(conn, "pen"), [5, 6]);
    age(conn, 25);
    assert_eq!(front.purge().await.expect("purges").operations, 1);
    assert_eq!(C::count(conn, "inbox_operations"), 0);
    assert!(!shop.order("\"k\"", 7).await.is_replayed());
}

async fn t24_the_layer_s_keys_expire_alike_and_the_purge_leaves_what_is_in_progress<C: Shopping>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    let front = Idempotency::new(policy(), C::pool(&database)).expect("a good policy");
    let shop = Server::layered(&front, async |run| {
        axum::response::IntoResponse::into_response(format!("run {run}"))
    })
    .await;
    assert_eq!(shop.order("\"k\"", 5).await.body, "run 1");
    age(conn, 23);
    assert_eq!(shop.order("\"k\"", 5).await.body, "run 1");
    age(conn, 2);
    let second = shop.order("\"k\"", 6).await;
    assert_eq!((second.is_replayed(), &*second.body), (false, "run 2"));
    assert_eq!(C::count(conn, "inbox_requests WHERE epoch = 1"), 1);

    let left = if C::NAME == "postgres" {
        "INSERT INTO inbox_requests (consumer, scope, operation, fingerprint, owner, lease_until)
         SELECT consumer, scope, 'left behind', fingerprint, 'dead', now() FROM inbox_requests"
    } else {
        "INSERT INTO inbox_requests (consumer, scope, operation, fingerprint, owner, lease_until)
         SELECT consumer, scope, 'left behind', fingerprint, 'dead', 1 FROM inbox_requests"
    };
    assert_eq!(C::execute(conn, left), Ok(1));
    age(conn, 25);
    assert_eq!(front.purge().await.expect("purges").requests, 1);
    assert_eq!(C::count(conn, "inbox_requests WHERE owner = 'dead'"), 1);
    assert_eq!(C::count(conn, "inbox_requests"), 1);
}

async fn t25_purge_and_repeats_at_the_boundary_leave_an_order_per_new_run<C: Shopping>() {
    let database = C::database();
    let mut policy = policy();
    // Keys expire all the time while they are repeated.
    policy.keep = Duration::from_millis(20);
    policy.wait = Duration::from_secs(60);
    let recorded = Recorded::install();
    let repeated = format!("{TRANSACTIONS_REPEATED} policy={}", policy.name);
    let front = Idempotency::new(policy.clone(), C::pool(&database)).expect("a good policy");
    let shop = Server::start(policy, C::pool(&database), place::<C>).await;
    let done = Arc::new(AtomicBool::new(false));
    let over = done.clone();
    let purging = tokio::spawn(async move {
        while !over.load(Ordering::SeqCst) {
            front.purge().await.expect("purges");
        }
    });
    let clients = (0..4).map(async |_| {
        let mut new = 0;
        for _ in 0..50 {
            let answer = shop.order("\"k\"", 5).await;
            assert_eq!(answer.status, 201, "{answer:?}");
            new += usize::from(!answer.is_replayed());
        }
        new
    });
    let new: usize = join_all(clients).await.into_iter().sum();
    done.store(true, Ordering::SeqCst);
    purging.await.expect("no panic");
    let conn = &mut C::connection(&database);
    assert_eq!(C::credits(conn, "pen").len(), new);
    // A look can just miss another one's commit; what was run over it is undone, and counted.
    let in_vain = recorded.counter(&repeated).expect("is exported");
    let runs = shop.runs() as u64;
    assert!((new as u64..=new as u64 + in_vain).contains(&runs), "{runs} runs, {new} new");
    assert!(new > 1, "nothing expired");
}
