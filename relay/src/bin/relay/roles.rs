use anyhow::{Result, bail};
use clap::Args;
use db::Db;
use diesel::PgConnection;
use migrations::Roles;

use crate::config::Config;
use crate::database::{Kind, address, kind, settings};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// What the four names begin with.
    #[arg(long, default_value = "counterfoil")]
    prefix: String,
    /// The schema of the tables [default: the first one of the connection's search path].
    #[arg(long)]
    schema: Option<String>,
    /// Do not let the relay delete messages; retention needs that.
    #[arg(long)]
    no_purge: bool,
    /// Only print the statements. With --schema no database is asked.
    #[arg(long)]
    print: bool,
}

pub(crate) fn roles(config: &Config, options: &Options) -> Result<()> {
    let mut roles = Roles::default();
    roles.prefix.clone_from(&options.prefix);
    roles.schema.clone_from(&options.schema);
    roles.purge = !options.no_purge;
    if let (true, Some(schema)) = (options.print, &options.schema) {
        print!("{}", migrations::roles_sql(&roles, schema)?);
        return Ok(());
    }
    if kind(address(config)?) != Kind::Postgres {
        bail!("SQLite has no roles: whoever may read the file may do everything; guard the file");
    }
    let db = Db::<PgConnection>::open(address(config)?, settings(config))?;
    let mut conn = db.get::<std::convert::Infallible>()?;
    if options.print {
        let schema = migrations::current_schema(&mut conn)?;
        print!("{}", migrations::roles_sql(&roles, &schema)?);
        return Ok(());
    }
    migrations::create_roles(&mut conn, &roles)?;
    for role in ["producer", "relay", "consumer", "admin"] {
        println!("{}_{role} has its rights on {}", roles.prefix, db.address());
    }
    println!("grant them to the roles that log in: GRANT {}_producer TO …", roles.prefix);
    Ok(())
}
