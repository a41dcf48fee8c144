//! A database whose parties log in with the least rights, as `relay roles` gives them.

use diesel::RunQueryDsl;
use diesel::connection::SimpleConnection;
use diesel::sql_query;

use crate::database::Database;

const PASSWORD: &str = "least";

/// Addresses of one database for each party. Dropping it removes the roles.
pub struct LeastPrivileged {
    /// For services that enqueue.
    pub producer: String,
    /// For `relay run`.
    pub relay: String,
    /// For an inbox. Rights on the business tables are the test's to grant, to [`group`](Self::group).
    pub consumer: String,
    /// For operators' commands.
    pub admin: String,
    prefix: String,
    owner: String,
}

impl LeastPrivileged {
    /// Makes the roles on a migrated database, and one that logs in for each.
    #[must_use]
    pub fn on(database: &Database) -> Self {
        let prefix = format!("t{}", uuid::Uuid::now_v7().simple());
        let mut roles = migrations::Roles::default();
        roles.prefix.clone_from(&prefix);
        let mut conn = database.pg();
        migrations::create_roles(&mut conn, &roles).expect("makes the roles");
        let login = |party: &str| {
            let mut url = url::Url::parse(&database.url).expect("a URL");
            url.set_username(&format!("{prefix}_{party}_login")).expect("a host");
            url.set_password(Some(PASSWORD)).expect("a host");
            url.into()
        };
        for party in PARTIES {
            conn.batch_execute(&format!(
                "CREATE ROLE {prefix}_{party}_login LOGIN PASSWORD '{PASSWORD}';
                 GRANT {prefix}_{party} TO {prefix}_{party}_login"
            ))
            .expect("makes a login");
        }
        Self {
            producer: login("producer"),
            relay: login("relay"),
            consumer: login("consumer"),
            admin: login("admin"),
            prefix,
            owner: database.url.clone(),
        }
    }

    /// The group role of a party: `producer`, `relay`, `consumer` or `admin`.
    #[must_use]
    pub fn group(&self, party: &str) -> String {
        format!("{}_{party}", self.prefix)
    }
}

const PARTIES: [&str; 4] = ["producer", "relay", "consumer", "admin"];

impl Drop for LeastPrivileged {
    fn drop(&mut self) {
        // Before the database goes: rights in it keep a role from being dropped.
        let Ok(mut conn) = <diesel::PgConnection as diesel::Connection>::establish(&self.owner)
        else {
            return;
        };
        for party in PARTIES {
            let group = self.group(party);
            for statement in [
                format!("DROP OWNED BY {group}"),
                format!("DROP ROLE {group}_login"),
                format!("DROP ROLE {group}"),
            ] {
                let _ = sql_query(statement).execute(&mut conn);
            }
        }
    }
}
