use diesel::connection::SimpleConnection;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::Integer;
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query};
use url::Url;

use crate::address::{redacted, scrubbed};
use crate::{Backend, OpenError, Settings};

/// The first with `xid8` and `pg_snapshot`.
const OLDEST: i32 = 130_000;

#[derive(QueryableByName)]
struct Server {
    #[diesel(sql_type = Integer)]
    version: i32,
}

impl Backend for PgConnection {
    fn address(address: &str, settings: &Settings) -> Result<String, OpenError> {
        let Ok(mut url) = Url::parse(address) else {
            // The keyword form is libpq's own; it takes the guards in `prepare` all the same.
            return if address.contains('=') && !address.contains("://") {
                Ok(address.to_owned())
            } else {
                let reason = scrubbed(
                    "it is neither a postgres:// address nor keyword=value pairs",
                    address,
                );
                Err(OpenError::BadAddress { reason })
            };
        };
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            let reason = format!("{} is not a postgres:// address", redacted(address));
            return Err(OpenError::BadAddress { reason });
        }
        let set: Vec<String> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
        let defaults = [
            ("connect_timeout", settings.acquire_timeout.as_secs().max(2).to_string()),
            ("tcp_user_timeout", settings.tcp_user_timeout.as_millis().to_string()),
            ("keepalives_idle", "30".to_owned()),
            ("keepalives_interval", "10".to_owned()),
            ("keepalives_count", "3".to_owned()),
            ("application_name", settings.application_name.clone()),
        ];
        for (name, value) in defaults.iter().filter(|(name, _)| !set.iter().any(|s| s == name)) {
            url.query_pairs_mut().append_pair(name, value);
        }
        // libpq does not read `+` as a blank.
        let query = url.query().map(|query| query.replace('+', "%20"));
        url.set_query(query.as_deref());
        Ok(url.into())
    }

    fn prepare(&mut self, settings: &Settings) -> Result<(), Error> {
        let server: Server =
            sql_query("SELECT current_setting('server_version_num')::int AS version")
                .get_result(self)?;
        if server.version < OLDEST {
            let text = format!("PostgreSQL 13 or newer is needed, and this is {}", server.version);
            return Err(Error::DatabaseError(DatabaseErrorKind::Unknown, Box::new(text)));
        }
        // Guards only, nothing the algorithms rely on: behind a transaction pooler a session's
        // settings may be another client's.
        self.batch_execute(&format!(
            "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
             SET default_transaction_isolation = 'read committed'",
            settings.statement_timeout.as_millis(),
            settings.lock_timeout.as_millis(),
            settings.idle_in_transaction_timeout.as_millis(),
        ))
    }

    fn is_login_refused(message: &str) -> bool {
        // libpq gives no SQLSTATE for a refused connection, and these texts are translated by the
        // server's lc_messages: an untranslated guess only turns a clear stop into a retry.
        ["authentication failed", "no password supplied", "pg_hba.conf", "does not exist"]
            .iter()
            .any(|text| message.contains(text))
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
            "postgres://u:p@h/db?tcp_user_timeout=5&sslmode=require",
            &settings,
        );
        let address = address.expect("valid");
        assert!(address.contains("tcp_user_timeout=5&"), "{address}");
        assert!(address.contains("sslmode=require"), "{address}");
        assert!(address.contains("keepalives_idle=30"), "{address}");
    }

    #[test]
    fn a_bad_address_is_refused_without_its_password() {
        for bad in ["mysql://u:canary@h/db", "postgres://u:canary@h:port/db", "u:canary@h"] {
            let error =
                PgConnection::address(bad, &Settings::default()).expect_err(bad).to_string();
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
