//! TLS to PostgreSQL: a server elsewhere that shows a wrong certificate, or none, is refused, whatever
//! it offers instead; and no text holds the password.

use std::path::Path;

use db::{Db, Settings};
use diesel::sql_types::Bool;
use diesel::{PgConnection, QueryableByName, RunQueryDsl, sql_query};
use support::process::Process;
use support::tls_database::{Shows, TlsDatabase};

const CANARY: &str = "canary-4711";

/// `relay migrate`, with what it printed.
fn migrate(url: &str, flags: &[&str]) -> (bool, String) {
    let args = [&["migrate"], flags].concat();
    let env = [("RELAY_DATABASE_URL", url), ("RELAY_LOG", "trace")];
    let mut relay = Process::start("relay", &args, &env);
    let done = relay.finish().success();
    assert!(!relay.output.contains(CANARY), "{}", relay.output);
    assert!(!relay.output.contains("panicked"), "{}", relay.output);
    (done, relay.output.clone())
}

#[track_caller]
fn accepted(url: &str, flags: &[&str]) {
    let (done, output) = migrate(url, flags);
    assert!(done, "{output}");
}

#[track_caller]
fn refused(url: &str, flags: &[&str], texts: &[&str]) {
    let (done, output) = migrate(url, flags);
    assert!(!done, "{output}");
    for text in texts {
        assert!(output.contains(text), "{text:?} is missing in:\n{output}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[derive(QueryableByName)]
struct Session {
    #[diesel(sql_type = Bool)]
    ssl: bool,
}

#[test]
fn whatever_it_shows() {
    let mut server = TlsDatabase::start(CANARY);
    let authority = server.authority();
    let ca = ["--database-ca-file", text(&authority)];
    let url = server.url("counterfoil", CANARY, "");

    server.show(Shows::Good);
    accepted(&url, &ca);
    let mut settings = Settings::default();
    settings.ca_file = Some(authority.clone());
    let db = Db::<PgConnection>::open(&url, settings).expect("opens");
    let session: Session = sql_query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .get_result(&mut *db.get::<()>().expect("connects"))
        .expect("asks");
    assert!(session.ssl, "encrypted without being told to");
    drop(db);
    let keywords = url.replacen("postgres://counterfoil:", "", 1);
    let (_, rest) = keywords.split_once('@').expect("a host");
    let (host, rest) = rest.split_once(':').expect("a port");
    let (port, _) = rest.split_once('/').expect("a name");
    let keywords =
        format!("host={host} port={port} user=counterfoil password={CANARY} dbname=postgres");
    accepted(&keywords, &ca);
    refused(&keywords, &[], &["could not prove who it is", "ca_file"]);

    // Less than proof is a decision with a name.
    for mode in ["disable", "allow", "prefer", "require"] {
        let weak = server.url("counterfoil", CANARY, &format!("?sslmode={mode}"));
        refused(&weak, &ca, &[&format!("sslmode = {mode}"), "allow_plaintext"]);
        accepted(&weak, &["--database-allow-plaintext"]);
    }
    // Nobody vouches for it: no system authority is asked in its place.
    refused(&url, &[], &["could not prove who it is", "ca_file"]);

    // The user that must show a certificate itself.
    let mut admin = {
        let mut settings = Settings::default();
        settings.ca_file = Some(authority.clone());
        Db::<PgConnection>::open(&url, settings).expect("opens").get::<()>().expect("connects")
    };
    sql_query(format!("CREATE ROLE certified SUPERUSER LOGIN PASSWORD '{CANARY}'"))
        .execute(&mut *admin)
        .expect("creates");
    drop(admin);
    let certified = server.url("certified", CANARY, "");
    let (certificate, key) = server.client();
    refused(&certified, &ca, &["refused the login", "client certificate", "client_cert_file"]);
    let client = [
        "--database-client-cert-file",
        text(&certificate),
        "--database-client-key-file",
        text(&key),
    ];
    accepted(&certified, &[&ca[..], &client].concat());

    for (shows, reason) in [
        (Shows::Expired, "certificate verify failed"),
        (Shows::OtherName, "other.example"),
        (Shows::OtherAuthority, "certificate verify failed"),
        (Shows::Nothing, "does not support SSL"),
    ] {
        server.show(shows);
        refused(&url, &ca, &["could not prove who it is", reason]);
        refused(&server.url("counterfoil", CANARY, "?sslmode=verify-full"), &ca, &[reason]);
    }
    // The server without TLS, once that is allowed.
    accepted(&url, &["--database-allow-plaintext"]);
}
