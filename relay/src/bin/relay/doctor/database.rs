use std::time::{Duration, SystemTime};

use anyhow::Result;
use db::{Db, Pooled};
use outbox::admin::{AdminStore, Facts, Right, TableUse};

use super::finding::Findings;
use crate::config::Config;
use crate::database::{address, settings};
use crate::output::span;

/// Further apart than this, times in logs and in the lag histogram mislead. Leases do not depend on
/// it: they count by the database's clock alone.
const CLOCKS_APART: Duration = Duration::from_secs(2);
/// A transaction that is open for longer keeps vacuum from its work.
const OPEN_TOO_LONG: Duration = Duration::from_secs(300);
/// So many dead rows, and more than live ones, are a vacuum that does not keep up.
const MANY_DEAD: i64 = 100_000;

/// Connects as the relay does, and checks the schema. With `pooler` as the relay should: the other checks
/// tell something all the same.
pub(super) fn open<C: AdminStore>(
    config: &Config,
    pooler: bool,
    findings: &mut Findings,
) -> Result<Option<Pooled<C>>> {
    let mut settings =
        settings(config).with_pool_size(1).with_application_name("counterfoil-relay doctor");
    settings.transaction_pooler = pooler;
    let opened = Db::<C>::open(address(config)?, settings);
    let db = match opened {
        Ok(db) => db,
        Err(error) => {
            let remedy = "correct [database] in the settings, or start the database".to_owned();
            findings.fail("database", error.to_string(), remedy);
            return Ok(None);
        }
    };
    let mut conn = db.get::<std::convert::Infallible>()?;
    if let Err(error) = migrations::check(&mut *conn) {
        findings.fail("schema", error.to_string(), "`relay migrate` with this release".to_owned());
        return Ok(None);
    }
    findings.ok("schema", format!("current on {}", db.address()));
    Ok(Some(conn))
}

pub(super) fn look(config: &Config, facts: &Facts, findings: &mut Findings) {
    if facts.standby {
        let remedy = "name the primary, as by target_session_attrs=read-write".to_owned();
        findings.fail(
            "server",
            format!("{} is a standby and takes no writes", facts.server),
            remedy,
        );
    } else {
        findings.ok("server", facts.server.clone());
    }
    rights(facts, findings);
    let here = SystemTime::now();
    let apart = here.duration_since(facts.now).unwrap_or_else(|ahead| ahead.duration());
    if apart > CLOCKS_APART {
        let text = format!("this host and the database are {} apart", span(apart));
        findings.warn("clock", text, "let both follow a time server (NTP)".to_owned());
    } else {
        findings.ok("clock", "this host and the database agree".to_owned());
    }
    match &facts.collation {
        None => findings.warn(
            "collation",
            "the server does not know under which version its indexes on text were made".to_owned(),
            "after an upgrade of the operating system REINDEX DATABASE, unless the locale is C".to_owned(),
        ),
        Some((was, is)) if was == is => findings
            .ok("collation", "indexes on text are in the order they are read in".to_owned()),
        // What is not found where it should be is entered once more: an operation would be applied twice.
        Some((was, is)) => findings.fail(
            "collation",
            format!(
                "indexes on text were made under version {was} of the collation, and the server has {is}: they can miss \
                 what they hold, and let a key in twice"
            ),
            "stop what writes, REINDEX DATABASE, then ALTER DATABASE … REFRESH COLLATION VERSION".to_owned(),
        ),
    }
    match facts.encrypted {
        None | Some(true) => {
            findings.ok("encryption", "the way to the database is private".to_owned())
        }
        Some(false) if is_local(address(config).unwrap_or_default()) => {
            findings.ok("encryption", "plain, to this host itself".to_owned());
        }
        Some(false) => findings.warn(
            "encryption",
            "passwords and payloads go to the database in the clear".to_owned(),
            "add sslmode=verify-full and sslrootcert to the address".to_owned(),
        ),
    }
}

fn is_local(address: &str) -> bool {
    [
        "@localhost",
        "@127.0.0.1",
        "@[::1]",
        "//localhost",
        "//127.0.0.1",
        "host=localhost",
        "host=127.0.0.1",
    ]
    .iter()
    .any(|host| address.contains(host))
}

fn rights(facts: &Facts, findings: &mut Findings) {
    let missing = |what: TableUse| -> Vec<&Right> {
        facts.rights.iter().filter(|right| right.needed_by == what && !right.granted).collect()
    };
    let text = |rights: &[&Right]| -> String {
        let each = rights.iter().map(|right| format!("{} on {}", right.privilege, right.object));
        each.collect::<Vec<_>>().join(", ")
    };
    let relay = missing(TableUse::Relay);
    if !relay.is_empty() {
        findings.fail(
            "rights",
            format!("the role {:?} lacks {}", facts.role, text(&relay)),
            "grant them, or let `relay roles` make the roles".to_owned(),
        );
    } else if facts.rights.is_empty() {
        findings.ok("rights", "a file has no roles".to_owned());
    } else {
        findings.ok("rights", format!("the role {:?} has what publishing needs", facts.role));
    }
    for (what, command) in
        [(TableUse::Purge, "the purge"), (TableUse::Operator, "an operator's commands")]
    {
        let missing = missing(what);
        if !missing.is_empty() {
            findings.warn(
                "rights",
                format!(
                    "the role {:?} lacks {}, which {command} would need",
                    facts.role,
                    text(&missing)
                ),
                "nothing, where another role does that".to_owned(),
            );
        }
    }
}

/// What makes a database slow over time.
pub(super) fn vitals<C: AdminStore>(conn: &mut C, facts: &Facts, findings: &mut Findings) {
    let vitals = match conn.vitals(Duration::from_secs(30)) {
        Ok(vitals) => vitals,
        Err(error) => {
            let remedy = "grant pg_read_all_stats to see other roles' sessions".to_owned();
            return findings.warn("vacuum", format!("cannot be looked at: {error}"), remedy);
        }
    };
    match &vitals.oldest_xmin {
        // A slot has no age but in transactions; one that is left behind shows by their number.
        Some(holder)
            if holder
                .open
                .map_or(holder.transactions > 10_000_000, |open| open > OPEN_TOO_LONG) =>
        {
            let open =
                holder.open.map_or("a slot".to_owned(), |open| format!("open for {}", span(open)));
            findings.warn(
                "vacuum",
                format!(
                    "it waits for {} in database {:?}, {open}, {} transactions ago",
                    holder.who, holder.database, holder.transactions
                ),
                remedy(&holder.who),
            );
        }
        Some(_) | None => findings.ok("vacuum", "it waits for nobody for long".to_owned()),
    }
    if !facts.autovacuum {
        let remedy = "set autovacuum = on in postgresql.conf".to_owned();
        findings.warn("autovacuum", "the server runs none".to_owned(), remedy);
    }
    for table in &vitals.dead_tuples {
        if table.autovacuum_off {
            let remedy = format!("ALTER TABLE {} RESET (autovacuum_enabled)", table.table);
            findings.warn("autovacuum", format!("it is off for {}", table.table), remedy);
        }
        if table.dead > MANY_DEAD && table.dead > table.live {
            let text = format!(
                "{} has {} dead rows and {} live ones",
                table.table, table.dead, table.live
            );
            let remedy = format!("end what vacuum waits for, then VACUUM {}", table.table);
            findings.warn("autovacuum", text, remedy);
        }
    }
}

fn remedy(who: &str) -> String {
    let pid: String = who
        .strip_prefix("process ")
        .unwrap_or_default()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    if !pid.is_empty() {
        return format!("let it end, or SELECT pg_terminate_backend({pid})");
    }
    if who.starts_with("prepared") {
        return "COMMIT PREPARED or ROLLBACK PREPARED it, by its name".to_owned();
    }
    "let its reader catch up, or drop the slot: SELECT pg_drop_replication_slot(…)".to_owned()
}
