//! What an inbox is, on either database.

mod administered;
mod administered_keys;
mod batches;
mod broker;
mod building;
mod commands;
mod commands_given_up;
mod consumer;
mod counted;
mod diesel_async;
mod duplicates;
mod effects;
mod effects_compensated;
mod effects_delivered;
mod effects_fenced;
mod effects_reconciled;
mod effects_unknown;
mod figures;
mod idle;
mod once;
mod once_concurrent;
mod ordered;
mod own_constraint;
mod parking;
mod rebuilt;
mod replayed;
mod retention;
mod retrying;
mod swallowed;
mod taking;
mod transition;
mod transition_concurrent;
mod transition_delivered;
mod transition_own_table;

/// One test per scenario and database. A scenario is an async function over its connection type.
macro_rules! on_both {
    ($($scenario:ident),* $(,)?) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $scenario() {
                support::bounded(super::$scenario::<diesel::PgConnection>()).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $scenario() {
                support::bounded(super::$scenario::<diesel::SqliteConnection>()).await;
            })*
        }
    };
}
use on_both;
