use db::{Db, pooler_suspected};
use diesel::PgConnection;

use super::finding::Findings;
use crate::config::Config;
use crate::database::{Kind, address, kind, settings};

/// Whether the address leads to a transaction pooler, as far as it shows.
pub(super) fn look(config: &Config, findings: &mut Findings) -> bool {
    let Ok(address) = address(config) else { return false };
    if kind(address) == Kind::Sqlite {
        return false;
    }
    // As if told: what the look itself prepared in a session could meet another one.
    let told = settings(config).transaction_pooler;
    let settings = settings(config)
        .with_pool_size(2)
        .with_application_name("counterfoil-relay doctor")
        .behind_transaction_pooler();
    // Why no connection can be made is said by the check of the database.
    let Ok(db) = Db::<PgConnection>::open(address, settings) else { return false };
    let suspected = pooler_suspected(&db);
    match (&suspected, told) {
        (Ok(true), false) => findings.fail(
            "pooler",
            "the address leads to a transaction pooler, and transaction_pooler is not set".to_owned(),
            "set [database] transaction_pooler = true (RELAY_TRANSACTION_POOLER=true), or name the server itself"
                .to_owned(),
        ),
        (Ok(true), true) => {
            findings.ok("pooler", "a transaction pooler, and transaction_pooler is set".to_owned());
        }
        // A busy one can go unnoticed.
        (Ok(false), true) => findings
            .ok("pooler", "transaction_pooler is set; none was noticed just now".to_owned()),
        (Ok(false), false) => findings.ok("pooler", "no transaction pooler was noticed".to_owned()),
        (Err(error), _) => findings.warn(
            "pooler",
            format!("whether there is one cannot be told: {error}"),
            "let the relay have three connections or more, and see what the server's log says".to_owned(),
        ),
    }
    told || suspected.unwrap_or(false)
}
