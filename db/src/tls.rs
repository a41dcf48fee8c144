use std::net::IpAddr;
use std::path::Path;

use crate::address::redacted;
use crate::conninfo::Conninfo;
use crate::{OpenError, Settings};

/// libpq's own variables, which stand in for what the address does not say.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Makes the address ask for a server that proves who it is, where it is not on this machine.
pub(crate) fn apply(
    info: &mut Conninfo,
    settings: &Settings,
    address: &str,
    environment: Environment<'_>,
) -> Result<(), OpenError> {
    for (name, file) in [
        ("sslrootcert", &settings.ca_file),
        ("sslcert", &settings.client_cert_file),
        ("sslkey", &settings.client_key_file),
    ] {
        if let Some(file) = file {
            info.default(name, text(file)?);
        }
    }
    let effective = |info: &Conninfo, name: &str, variable: &str| {
        info.get(name)
            .map(str::to_owned)
            .or_else(|| environment(variable))
            .filter(|v| !v.is_empty())
    };
    // Where both are given the connection goes to hostaddr.
    let target =
        effective(info, "hostaddr", "PGHOSTADDR").or_else(|| effective(info, "host", "PGHOST"));
    let service = effective(info, "service", "PGSERVICE").is_some();
    let local = match &target {
        Some(hosts) => hosts.split(',').all(is_local),
        // Without one libpq takes the unix socket, or whatever the service file says.
        None => !service,
    };
    if local || settings.allow_plaintext {
        return Ok(());
    }
    let mode = effective(info, "sslmode", "PGSSLMODE");
    match mode.as_deref() {
        None if info.get("ssl").is_none() => {
            info.default("sslmode", "verify-full");
            Ok(())
        }
        Some("verify-full" | "verify-ca") => Ok(()),
        other => Err(OpenError::Plaintext {
            address: redacted(address),
            setting: "sslmode",
            value: other.unwrap_or("require (ssl=true)").to_owned(),
            remedy: "it would take any server for the right one; leave it out, which means verify-full, and name the \
                     authority in ca_file, or set allow_plaintext = true if the network itself is trusted"
                .to_owned(),
        }),
    }
}

fn text(file: &Path) -> Result<&str, OpenError> {
    file.to_str().ok_or_else(|| OpenError::BadAddress {
        reason: format!("the file name {} is not UTF-8", file.display()),
    })
}

fn is_local(host: &str) -> bool {
    let host = host.trim();
    // Empty is libpq's unix socket, `@` an abstract one.
    host.is_empty()
        || host.starts_with(['/', '@'])
        || host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(address: &str, change: impl FnOnce(&mut Settings), env: &[(&str, &str)]) -> String {
        let mut settings = Settings::default();
        change(&mut settings);
        let env =
            |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let mut info = Conninfo::parse(address).expect("readable");
        match apply(&mut info, &settings, address, &env) {
            Ok(()) => info.get("sslmode").unwrap_or("default").to_owned(),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("allow_plaintext") && !text.contains("canary"), "{text}");
                "refused".to_owned()
            }
        }
    }

    #[test]
    fn only_this_machine_is_trusted_without_proof() {
        let nothing = |_: &mut Settings| {};
        for (address, expected) in [
            ("postgres://u:canary@127.0.0.1/db", "default"),
            ("postgres://u:canary@127.9.9.9/db", "default"),
            ("postgres://u:canary@[::1]:5432/db", "default"),
            ("postgres://u:canary@LOCALHOST/db?sslmode=disable", "disable"),
            ("postgres:///db?host=/run/postgresql", "default"),
            ("postgres:///db", "default"),
            ("dbname=shop user=u password=canary", "default"),
            ("postgres://u:canary@db.internal/db", "verify-full"),
            ("postgres://u:canary@10.0.0.7/db", "verify-full"),
            ("host=db.internal password=canary", "verify-full"),
            ("service=shop password=canary", "verify-full"),
            ("host=localhost,db.internal password=canary", "verify-full"),
            ("host=localhost hostaddr=10.0.0.7 password=canary", "verify-full"),
            ("postgres://u:canary@localhost/db?host=db.internal", "verify-full"),
            ("postgres://u:canary@localhost.example/db", "verify-full"),
            ("postgres://u:canary@db.internal/db?sslmode=verify-full", "verify-full"),
            ("postgres://u:canary@db.internal/db?sslmode=verify-ca", "verify-ca"),
            ("postgres://u:canary@db.internal/db?sslmode=require", "refused"),
            ("postgres://u:canary@db.internal/db?sslmode=prefer", "refused"),
            ("postgres://u:canary@db.internal/db?sslmode=allow", "refused"),
            ("postgres://u:canary@db.internal/db?sslmode=disable", "refused"),
            ("postgres://u:canary@db.internal/db?ssl=true", "refused"),
            ("host=db.internal sslmode='disable' password=canary", "refused"),
        ] {
            assert_eq!(full(address, nothing, &[]), expected, "{address}");
        }
    }

    #[test]
    fn libpq_s_environment_counts_where_the_address_is_silent() {
        let nothing = |_: &mut Settings| {};
        let remote = "postgres://u:canary@db.internal/db";
        assert_eq!(full(remote, nothing, &[("PGSSLMODE", "require")]), "refused");
        assert_eq!(full(remote, nothing, &[("PGSSLMODE", "verify-full")]), "default");
        assert_eq!(full("postgres:///db", nothing, &[("PGHOST", "db.internal")]), "verify-full");
        assert_eq!(full("dbname=db", nothing, &[("PGSERVICE", "shop")]), "verify-full");
    }

    #[test]
    fn permission_and_files_are_given_by_name() {
        let remote = "postgres://u:canary@db.internal/db?sslmode=disable";
        assert_eq!(full(remote, |settings| settings.allow_plaintext = true, &[]), "disable");
        let settings = Settings { ca_file: Some("/etc/ca's.pem".into()), ..Settings::default() };
        for address in ["postgres://h/db", "host=h"] {
            let mut info = Conninfo::parse(address).expect("readable");
            apply(&mut info, &settings, address, &|_| None).expect("verifies");
            assert_eq!(info.get("sslrootcert"), Some("/etc/ca's.pem"));
            assert_eq!(info.get("sslmode"), Some("verify-full"));
        }
    }
}
