//! The whole path, from a business transaction to an applied operation, with the real programs.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod a_row_inserted_with_psql_arrives;
mod compose_commands;
mod effect_commands;
mod health_and_metrics;
mod operator_commands;
mod parked_commands;
mod rebase_as_the_admin;
mod replay_commands;
mod sqlite_files;
mod the_order_machine_tells_its_story;
mod the_shop_keeps_its_books;
