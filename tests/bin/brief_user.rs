//! A process that uses its database for a moment and ends: `brief_user ADDRESS`. More threads want a connection at once
//! than get one of their own: some are being opened still when the process ends.
#![allow(clippy::expect_used, reason = "a test program that cannot go on fails its test")]

use db::Db;
use diesel::{PgConnection, RunQueryDsl, sql_query};

#[tokio::main]
async fn main() {
    let address = std::env::args().nth(1).expect("an address");
    let db = Db::<PgConnection>::connect(&address, db::Settings::default().with_pool_size(8))
        .await
        .expect("connects");
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let db = db.clone();
            tokio::spawn(async move { db.call(|conn| sql_query("SELECT 1").execute(conn)).await })
        })
        .collect();
    for call in calls {
        call.await.expect("no panic").expect("is answered");
    }
}
