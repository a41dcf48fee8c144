//! `relay doctor`: looks at everything the relay depends on and changes nothing.

mod broker;
mod cursor;
mod database;
mod finding;
mod pooler;
mod wakeup;

use anyhow::{Result, bail};
use diesel::{PgConnection, SqliteConnection};
use outbox::admin::AdminStore;
use serde_json::json;
use transport::rabbitmq::RabbitSettings;

use crate::config::Config;
use crate::database::{Kind, kind};
use crate::operator::{Output, on_database};
use crate::output::{self, say};
use crate::run;
use finding::{Finding, Findings, Verdict};

pub(crate) fn doctor(config: &Config, output: Output) -> Result<()> {
    let mut findings = Findings::default();
    settings(config, &mut findings);
    let exchanges = match crate::database::address(config) {
        Ok(_) => on_database!(config, look(&mut findings))?,
        Err(error) => {
            findings.fail("database", format!("{error:#}"), "name the database".to_owned());
            Vec::new()
        }
    };
    broker::look(config, &exchanges, &mut findings)?;
    print(&findings, output)?;
    let failed = findings.0.iter().filter(|finding| finding.verdict == Verdict::Fail).count();
    if failed > 0 {
        bail!("{failed} of {} checks failed; the relay cannot work as it should", findings.0.len());
    }
    Ok(())
}

/// The settings as `relay run` would check them.
fn settings(config: &Config, findings: &mut Findings) {
    let settings = run::settings(config);
    let defaults = RabbitSettings::default();
    let heartbeat = config.broker.heartbeat.unwrap_or(defaults.heartbeat);
    let publish = config.broker.publish_timeout.unwrap_or(defaults.publish_timeout);
    match settings.validate(Some(heartbeat), publish) {
        Ok(()) => {}
        Err(error) => return findings.fail("settings", error.to_string(), error.remedy),
    }
    let database = crate::database::settings(config);
    let fits = match crate::database::address(config).map(kind) {
        Ok(Kind::Sqlite) => settings.validate_with::<SqliteConnection>(&database),
        Ok(Kind::Postgres) => settings.validate_with::<PgConnection>(&database),
        // Said by the check of the database.
        Err(_) => Ok(()),
    };
    if let Err(error) = fits {
        return findings.fail("settings", error.to_string(), error.remedy);
    }
    findings.ok("settings", "they fit together".to_owned());
}

/// Looks at the database and returns the exchanges that messages go to.
fn look<C: AdminStore>(config: &Config, findings: &mut Findings) -> Result<Vec<String>> {
    let pooler = pooler::look(config, findings);
    let Some(mut conn) = database::open::<C>(config, pooler, findings)? else {
        return Ok(Vec::new());
    };
    let cursor = crate::operator::cursor(config);
    let facts = match conn.facts() {
        Ok(facts) => facts,
        Err(error) => {
            let remedy = "grant the rights that docs/operations.md lists".to_owned();
            findings.fail("rights", format!("the database refused to tell: {error}"), remedy);
            return Ok(Vec::new());
        }
    };
    database::look(config, &facts, findings);
    wakeup::look(run::settings(config).wake, &facts, findings);
    cursor::look(&mut *conn, &cursor, &facts, findings);
    database::vitals(&mut *conn, &facts, findings);
    Ok(conn.exchanges(&cursor, 10_000).unwrap_or_default())
}

fn print(findings: &Findings, output: Output) -> Result<()> {
    if output.json {
        let all = findings.0.iter().map(|Finding { name, verdict, text, remedy }| {
            json!({ "check": name, "verdict": verdict.as_str(), "text": text, "remedy": remedy })
        });
        return output::json(&all.collect());
    }
    for Finding { name, verdict, text, remedy } in &findings.0 {
        say(format!("{:<4} {name}: {text}", verdict.as_str()))?;
        if let Some(remedy) = remedy {
            say(format!("     remedy: {remedy}"))?;
        }
    }
    Ok(())
}
