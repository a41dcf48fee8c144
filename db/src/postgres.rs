use std::time::Duration;

use diesel::connection::{CacheSize, SimpleConnection};
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::Integer;
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query};

use crate::conninfo::Conninfo;
use crate::{Backend, CallError, OpenError, Refusal, Settings, pooler, tls};

/// The first with `xid8` and `pg_snapshot`.
const OLDEST: i32 = 130_000;

#[derive(QueryableByName)]
struct Server {
    #[diesel(sql_type = Integer)]
    version: i32,
}

impl Backend for PgConnection {
    fn address(address: &str, settings: &Settings) -> Result<String, OpenError> {
        let mut info = Conninfo::parse(address)?;
        for (name, value) in [
            ("connect_timeout", settings.acquire_timeout.as_secs().max(2).to_string()),
            ("tcp_user_timeout", settings.tcp_user_timeout.as_millis().to_string()),
            ("keepalives_idle", "30".to_owned()),
            ("keepalives_interval", "10".to_owned()),
            ("keepalives_count", "3".to_owned()),
            ("application_name", settings.application_name.clone()),
        ] {
            info.default(name, &value);
        }
        tls::apply(&mut info, settings, address, &|name| std::env::var(name).ok())?;
        Ok(info.into_address())
    }

    fn prepare(&mut self, settings: &Settings) -> Result<(), Error> {
        let server: Server =
            sql_query("SELECT current_setting('server_version_num')::int AS version")
                .get_result(self)?;
        if server.version < OLDEST {
            let text = format!("PostgreSQL 13 or newer is needed, and this is {}", server.version);
            return Err(Error::DatabaseError(DatabaseErrorKind::Unknown, Box::new(text)));
        }
        if settings.transaction_pooler {
            // The session is lent out to others: each unit of work brings its own guards, and nothing
            // is prepared under a name.
            self.set_prepared_statement_cache_size(CacheSize::Disabled);
            return Ok(());
        }
        // Guards only, nothing the algorithms rely on.
        self.batch_execute(&format!(
            "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
             SET default_transaction_isolation = 'read committed'",
            settings.statement_timeout.as_millis(),
            settings.lock_timeout.as_millis(),
            settings.idle_in_transaction_timeout.as_millis(),
        ))
    }

    fn refusal(message: &str) -> Refusal {
        // libpq gives no SQLSTATE for a refused connection, and these texts are translated by the
        // server's lc_messages: an untranslated guess only turns a clear stop into a retry.
        let any = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
        if any(&["unsupported startup parameter"]) {
            Refusal::Parameter
        } else if any(&["valid client certificate"]) {
            Refusal::Login
        } else if any(&[
            "does not support SSL",
            "SSL error",
            "certificate",
            "private key file",
            "sslmode value",
            "SSL connection is required",
        ]) {
            Refusal::Unproven
        } else if any(&[
            "authentication failed",
            "no password supplied",
            "pg_hba.conf",
            "does not exist",
            "no such database",
            "no such user",
        ]) {
            Refusal::Login
        } else {
            Refusal::Unreachable
        }
    }

    fn lock_wait(settings: &Settings) -> Option<Duration> {
        // Zero means none to the server.
        (!settings.lock_timeout.is_zero()).then_some(settings.lock_timeout)
    }

    fn unit<T, E>(
        &mut self,
        settings: &Settings,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, CallError<E>> {
        if settings.transaction_pooler {
            pooler::unit(self, settings, work)
        } else {
            work(self).map_err(CallError::Work)
        }
    }

    fn write<T, E: From<Error>>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.transaction(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_s_parameters_win() {
        let settings = Settings::default();
        let address = PgConnection::address(
            "postgres://u:p@h/db?tcp_user_timeout=5&sslmode=verify-ca",
            &settings,
        );
        let address = address.expect("valid");
        assert!(address.contains("tcp_user_timeout=5&"), "{address}");
        assert!(address.contains("sslmode=verify-ca"), "{address}");
        assert!(address.contains("keepalives_idle=30"), "{address}");
    }

    #[test]
    fn keyword_addresses_get_the_same_guards() {
        let address =
            PgConnection::address("host=127.0.0.1 keepalives_idle=5", &Settings::default())
                .expect("valid");
        assert!(address.contains("tcp_user_timeout='30000'"), "{address}");
        assert!(!address.contains("keepalives_idle='30'"), "{address}");
    }

    #[test]
    fn a_refusal_is_told_from_an_outage() {
        for (text, expected) in [
            ("FATAL:  password authentication failed for user \"u\"", Refusal::Login),
            ("FATAL:  no such database: shop", Refusal::Login),
            ("FATAL:  connection requires a valid client certificate", Refusal::Login),
            ("FATAL:  unsupported startup parameter: options", Refusal::Parameter),
            ("server does not support SSL, but SSL was required", Refusal::Unproven),
            ("SSL error: certificate verify failed", Refusal::Unproven),
            ("root certificate file \"/x\" does not exist", Refusal::Unproven),
            ("connection to server at \"h\" failed: Connection refused", Refusal::Unreachable),
            ("FATAL:  the database system is starting up", Refusal::Unreachable),
        ] {
            assert_eq!(PgConnection::refusal(text), expected, "{text}");
        }
    }
}
