use diesel::connection::SimpleConnection;
use diesel::sql_types::{Nullable, Text};
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query};

const TEMPLATE: &str = include_str!("roles.sql");
/// A role's name has at most 63 bytes, and `_producer` and `_consumer` take nine.
const LONGEST_PREFIX: usize = 54;

/// The roles of least privilege on PostgreSQL: groups that cannot log in, to be granted to the roles that
/// do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Roles {
    /// What their names begin with: `counterfoil` makes `counterfoil_producer`, `counterfoil_relay`,
    /// `counterfoil_consumer` and `counterfoil_admin`. Default `counterfoil`. Roles belong to the whole
    /// cluster: choose another one where two databases of it must not share them.
    pub prefix: String,
    /// The schema that the tables stand in. Default none: the one the connection finds first.
    pub schema: Option<String>,
    /// Whether the relay may delete messages, which retention needs. Default true; false where nothing is
    /// purged, or by the admin only.
    pub purge: bool,
}

impl Default for Roles {
    fn default() -> Self {
        Self { prefix: "counterfoil".to_owned(), schema: None, purge: true }
    }
}

/// The roles could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RolesError {
    /// The prefix makes no name that needs no quotes.
    #[error(
        "prefix = {prefix:?} makes no role name; use 1 to {LONGEST_PREFIX} of a-z, 0-9 and _, and begin with a letter"
    )]
    Prefix {
        /// The prefix.
        prefix: String,
    },
    /// There is no schema to work in.
    #[error("the connection's search path names no schema that exists; name one")]
    NoSchema,
    /// The database refused.
    #[error(
        "the roles could not be made: {0}; run this as the owner of the tables, migrated, with CREATEROLE, or have the four roles made first"
    )]
    Database(#[from] diesel::result::Error),
}

/// The statements that make the roles with the tables in `schema`; [`Roles::schema`] does not count here.
///
/// # Errors
/// [`RolesError::Prefix`].
pub fn roles_sql(roles: &Roles, schema: &str) -> Result<String, RolesError> {
    let prefix = &roles.prefix;
    let fits = prefix.len() <= LONGEST_PREFIX
        && prefix.starts_with(|c: char| c.is_ascii_lowercase())
        && prefix.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !fits {
        return Err(RolesError::Prefix { prefix: prefix.clone() });
    }
    let purge = "-- For the retention.\nGRANT DELETE ON {schema}.outbox_messages TO {relay};\n";
    let mut sql = TEMPLATE.replace("{purge}", if roles.purge { purge } else { "" });
    for role in ["producer", "relay", "consumer", "admin"] {
        let name = format!("{prefix}_{role}");
        sql = sql
            .replace(&format!("{{{role}_name}}"), &name)
            .replace(&format!("{{{role}}}"), &quoted(&name));
    }
    Ok(sql.replace("{schema}", &quoted(schema)))
}

#[derive(QueryableByName)]
struct Current {
    #[diesel(sql_type = Nullable<Text>)]
    schema: Option<String>,
}

/// Makes the roles and gives each its rights on the tables, taking back what it had beyond them. Safe to
/// run again.
///
/// # Errors
/// [`RolesError`]; then nothing was changed.
pub fn create_roles(conn: &mut PgConnection, roles: &Roles) -> Result<(), RolesError> {
    conn.transaction(|conn| {
        let schema = match &roles.schema {
            Some(schema) => schema.clone(),
            None => current_schema(conn)?,
        };
        Ok(conn.batch_execute(&roles_sql(roles, &schema)?)?)
    })
}

/// The schema that the connection finds first, where [`run`](crate::run) puts the tables.
///
/// # Errors
/// [`RolesError::NoSchema`], or the database's error.
pub fn current_schema(conn: &mut PgConnection) -> Result<String, RolesError> {
    sql_query("SELECT current_schema()::text AS schema")
        .get_result::<Current>(conn)?
        .schema
        .ok_or(RolesError::NoSchema)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_is_filled_and_names_are_quoted() {
        let sql = roles_sql(&Roles::default(), "my \"shop\"").expect("valid");
        assert!(!sql.contains('{') && !sql.contains('}'), "{sql}");
        assert!(sql.contains("\"my \"\"shop\"\"\".outbox_messages"), "{sql}");
        assert!(sql.contains(
            "GRANT DELETE ON \"my \"\"shop\"\"\".outbox_messages TO \"counterfoil_relay\""
        ));
        let without = Roles { purge: false, ..Roles::default() };
        assert!(!roles_sql(&without, "s").expect("valid").contains("For the retention"));
    }

    #[test]
    fn a_prefix_that_would_need_quotes_is_refused() {
        for bad in ["", "1a", "A", "a-b", "a'; DROP TABLE x; --", &"a".repeat(55)] {
            let roles = Roles { prefix: bad.to_owned(), ..Roles::default() };
            assert!(matches!(roles_sql(&roles, "s"), Err(RolesError::Prefix { .. })), "{bad}");
        }
    }
}
