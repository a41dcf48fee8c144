//! The published window, and the purge.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diesel::PgConnection;
use futures_util::future::join_all;
use inbox::http::{Idempotency, Keep, Policy};
use support::gate::Gate;
use support::http::{Order, Server, Shopping, place, policy};
use support::inbox::Store;

use crate::concurrent::Undone;

super::on_both!(
    t24_an_expired_key_is_as_new_after_the_window_only_purged_or_not,
    t24_who_fails_under_an_expired_key_is_not_run_again,
    t24_a_failure_that_is_kept_takes_the_place_of_an_expired_reply,
    t24_the_layer_s_keys_expire_alike_and_the_purge_leaves_what_is_in_progress,
    t25_purge_and_repeats_at_the_boundary_leave_an_order_per_new_run,
    t25_in_the_layer_purge_and_repeats_at_the_boundary_leave_a_run_per_new_reply,
);

/// Makes what is stored older.
pub(super) fn age<C: Shopping>(conn: &mut C, hours: u32) {
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

async fn t24_who_fails_under_an_expired_key_is_not_run_again<C: Shopping>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    let shop = Server::start(policy(), C::pool(&database), |tx: &mut C, order: &Order| {
        let reply = place(tx, order)?;
        if order.cents == 6 {
            return Err(std::io::Error::other("sold out").into());
        }
        Ok(reply)
    })
    .await;
    assert_eq!(shop.order("\"k\"", 5).await.status, 201);
    age(conn, 25);
    shop.order("\"k\"", 6).await.expect_problem(500, "failed");
    assert_eq!(shop.runs(), 2);
    assert_eq!(shop.order("\"k\"", 7).await.status, 201);
    assert_eq!(C::credits(conn, "pen"), [5, 7]);
}

async fn t24_a_failure_that_is_kept_takes_the_place_of_an_expired_reply<C: Shopping>() {
    let database = C::database();
    let (mut policy, conn) = (policy(), &mut C::connection(&database));
    policy.server_errors = Keep::Stored;
    let shop = Server::start(policy, C::pool(&database), |tx: &mut C, order: &Order| {
        let reply = place(tx, order)?;
        assert_ne!(order.cents, 6, "a fault of the handler");
        Ok(reply)
    })
    .await;
    assert_eq!(shop.order("\"k\"", 5).await.status, 201);
    age(conn, 25);
    let spent = shop.order("\"k\"", 6).await;
    spent.expect_problem(500, "spent");
    let again = shop.order("\"k\"", 6).await;
    assert_eq!((again.status, again.is_replayed(), again.body), (500, true, spent.body));
    assert_eq!((shop.runs(), C::credits(conn, "pen")), (2, vec![5]));
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

/// Under it keys expire all the time while they are repeated.
fn short() -> Policy {
    let mut policy = policy();
    policy.keep = Duration::from_millis(20);
    policy.wait = Duration::from_secs(60);
    policy
}

async fn t25_purge_and_repeats_at_the_boundary_leave_an_order_per_new_run<C: Shopping>() {
    let (database, policy) = (C::database(), short());
    let undone = Undone::under(&policy);
    let front = Idempotency::new(policy.clone(), C::pool(&database)).expect("a good policy");
    let shop = Server::start(policy, C::pool(&database), place::<C>).await;
    let new = repeat_and_purge(&shop, front, 201).await;
    let conn = &mut C::connection(&database);
    assert_eq!(C::credits(conn, "pen").len(), new);
    assert_eq!(shop.runs(), new + undone.runs::<C>());
}

async fn t25_in_the_layer_purge_and_repeats_at_the_boundary_leave_a_run_per_new_reply<
    C: Shopping,
>() {
    let database = C::database();
    let front = Idempotency::new(short(), C::pool(&database)).expect("a good policy");
    let shop = Server::layered(&front, async |run| {
        axum::response::IntoResponse::into_response(format!("run {run}"))
    })
    .await;
    let new = repeat_and_purge(&shop, front, 200).await;
    assert_eq!(shop.runs(), new);
}

/// Repeats one request from four clients while a fifth purges; how many of them were new.
async fn repeat_and_purge<C: Shopping>(shop: &Server, front: Idempotency<C>, status: u16) -> usize {
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
            assert_eq!(answer.status, status, "{answer:?}");
            new += usize::from(!answer.is_replayed());
        }
        new
    });
    let new: usize = join_all(clients).await.into_iter().sum();
    done.store(true, Ordering::SeqCst);
    purging.await.expect("no panic");
    assert!(new > 1, "nothing expired");
    new
}

/// The row that has had its time is still there while its successor runs. On SQLite that one has the write lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t24_the_first_to_come_after_the_window_is_in_progress_to_the_others() {
    support::bounded(async {
        let database = PgConnection::database();
        let (gate, conn) = (Gate::default(), &mut PgConnection::connection(&database));
        let held = gate.clone();
        let shop = Server::start(policy(), database.pg_pool(4), move |tx, order: &Order| {
            if order.cents == 6 {
                held.pass();
            }
            place(tx, order)
        });
        let shop = Arc::new(shop.await);
        assert_eq!(shop.order("\"k\"", 5).await.status, 201);
        age(conn, 25);
        let next = shop.clone();
        let next = tokio::spawn(async move { next.order("\"k\"", 6).await });
        gate.entered().await;
        shop.order("\"k\"", 6).await.expect_problem(409, "in-progress");
        gate.open();
        assert_eq!(next.await.expect("no panic").status, 201);
        assert_eq!(shop.runs(), 2);
        assert!(shop.order("\"k\"", 6).await.is_replayed());
    })
    .await;
}
