//! Finding server programs and libpq, and installing what is missing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Result, bail};
use nix::unistd::Uid;

use super::compose;
use crate::shell;
use crate::signals::Signals;

/// Something this machine must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The server programs of PostgreSQL.
    Postgres,
    /// The scripts of RabbitMQ.
    RabbitMq,
    /// The client library that everything with diesel's `postgres` feature links.
    Libpq,
    /// The connection pooler, which tests start for themselves.
    PgBouncer,
    /// The library that shows a program another time of day.
    FakeTime,
    /// The program that makes certificates.
    OpenSsl,
}

impl Need {
    fn package(self) -> &'static str {
        match self {
            Self::Postgres => "postgresql",
            Self::RabbitMq => "rabbitmq-server",
            Self::Libpq => "libpq-dev",
            Self::PgBouncer => "pgbouncer",
            Self::FakeTime => "faketime",
            Self::OpenSsl => "openssl",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Postgres => {
                "PostgreSQL 13 or later with its server programs (Debian, Ubuntu: postgresql; \
                 Fedora: postgresql-server; macOS: brew install postgresql), or set DATABASE_URL"
            }
            Self::RabbitMq => {
                "RabbitMQ 3.10 or later (Debian, Ubuntu, Fedora: rabbitmq-server; macOS: brew \
                 install rabbitmq), or set AMQP_URL"
            }
            Self::Libpq => {
                "libpq with its headers (Debian, Ubuntu: libpq-dev; Fedora: libpq-devel; macOS: \
                 brew install libpq, with its bin folder on PATH)"
            }
            Self::PgBouncer => {
                "PgBouncer 1.18 or later (Debian, Ubuntu, Fedora: pgbouncer; macOS: brew install \
                 pgbouncer)"
            }
            Self::FakeTime => "libfaketime (Debian, Ubuntu: faketime; Fedora: libfaketime)",
            Self::OpenSsl => "the openssl program (everywhere: openssl)",
        }
    }

    fn present(self) -> bool {
        match self {
            Self::Postgres => postgres().is_some(),
            Self::RabbitMq => rabbitmq().is_some(),
            Self::Libpq => libpq(),
            Self::PgBouncer => pgbouncer(),
            Self::FakeTime => faketime(),
            Self::OpenSsl => on_path("openssl").is_some(),
        }
    }
}

/// What can be done on this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// apt-get exists.
    pub(crate) apt: bool,
    /// We are root.
    pub(crate) root: bool,
    /// sudo asks for no password.
    pub(crate) sudo: bool,
    /// `docker compose` works and its engine runs.
    pub(crate) docker: bool,
}

/// How to come by what is missing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Everything is there.
    Nothing,
    /// Install packages.
    Apt { sudo: bool, packages: Vec<&'static str> },
    /// Start the missing services as containers.
    Containers,
    /// Only a person can do it.
    Ask(String),
}

/// Decides how to come by `missing` on `machine`.
pub(crate) fn plan(missing: &[Need], machine: Machine) -> Plan {
    if missing.is_empty() {
        return Plan::Nothing;
    }
    if machine.apt && (machine.root || machine.sudo) {
        let packages = missing.iter().map(|need| need.package()).collect();
        return Plan::Apt { sudo: !machine.root, packages };
    }
    // A container cannot stand in for a library that is linked or a program that tests start.
    let replaceable = |need: &Need| matches!(need, Need::Postgres | Need::RabbitMq);
    if machine.docker && missing.iter().all(replaceable) {
        return Plan::Containers;
    }
    let remedies: Vec<_> =
        missing.iter().map(|need| format!("- install {}", need.remedy())).collect();
    Plan::Ask(format!("missing on this machine:\n{}", remedies.join("\n")))
}

/// Makes sure of `needs`; returns those for which a container must stand in.
pub(crate) fn ensure(needs: &[Need], signals: &Signals) -> Result<Vec<Need>> {
    let missing = || needs.iter().copied().filter(|need| !need.present()).collect::<Vec<_>>();
    let first = missing();
    if first.is_empty() {
        return Ok(first);
    }
    match plan(&first, machine()) {
        Plan::Nothing => Ok(Vec::new()),
        Plan::Containers => Ok(first),
        Plan::Ask(remedy) => bail!(remedy),
        Plan::Apt { sudo, packages } => {
            // apt may start the packages' own system services; we neither need nor touch them.
            shell::succeed(apt(sudo).arg("update"), signals)?;
            let mut install = apt(sudo);
            install.args(["install", "--yes", "--no-install-recommends"]).args(packages);
            shell::succeed(&mut install, signals)?;
            let still = missing();
            if still.is_empty() {
                return Ok(still);
            }
            let remedies: Vec<_> = still.iter().map(|need| need.remedy()).collect();
            bail!("installed and still not found: {}", remedies.join("; "))
        }
    }
}

fn machine() -> Machine {
    let root = Uid::effective().is_root();
    let apt = on_path("apt-get").is_some() && Path::new("/etc/debian_version").exists();
    let sudo = apt && !root && shell::works("sudo", &["-n", "true"]);
    Machine { apt, root, sudo, docker: !(apt && (root || sudo)) && compose::usable() }
}

fn apt(sudo: bool) -> Command {
    let mut command = if sudo { Command::new("sudo") } else { Command::new("env") };
    if sudo {
        command.args(["-n", "env"]);
    }
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    // `services --detach` prints addresses that a shell reads.
    command.stdin(std::process::Stdio::null()).stdout(std::io::stderr());
    command
}

/// Folder of PostgreSQL's server programs.
pub(crate) fn postgres() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = paths();
    let mut versions: Vec<PathBuf> = entries(Path::new("/usr/lib/postgresql"));
    versions.sort_by_key(|dir| std::cmp::Reverse(version(dir)));
    folders.extend(versions.into_iter().map(|dir| dir.join("bin")));
    if let Ok(output) = shell::probe(Command::new("pg_config").arg("--bindir")) {
        folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    let complete = |dir: &PathBuf| {
        ["initdb", "postgres", "psql"].iter().all(|program| dir.join(program).is_file())
    };
    folders.into_iter().find(complete)
}

/// Folder of RabbitMQ's scripts.
pub(crate) fn rabbitmq() -> Option<PathBuf> {
    let mut folders = vec![PathBuf::from("/usr/lib/rabbitmq/bin")];
    folders.extend(entries(Path::new("/usr/lib/rabbitmq/lib")).iter().map(|dir| dir.join("sbin")));
    folders.extend(paths());
    folders.extend(["/opt/homebrew/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.into_iter().find(|dir| dir.join("rabbitmqctl").is_file() && direct(dir))
}

/// Distributions put a wrapper on the path that changes to the account of the system's broker.
fn direct(dir: &Path) -> bool {
    fs::read(dir.join("rabbitmq-server"))
        .is_ok_and(|script| !String::from_utf8_lossy(&script).contains("su rabbitmq"))
}

/// Debian has it outside of an ordinary user's path; the tests look in the same places.
fn faketime() -> bool {
    let places = ["x86_64-linux-gnu/faketime", "aarch64-linux-gnu/faketime"]
        .map(|place| format!("/usr/lib/{place}"));
    places
        .iter()
        .map(String::as_str)
        .chain(["/usr/lib64/faketime"])
        .any(|folder| Path::new(folder).join("libfaketime.so.1").is_file())
}

fn pgbouncer() -> bool {
    on_path("pgbouncer").is_some() || Path::new("/usr/sbin/pgbouncer").is_file()
}

fn libpq() -> bool {
    env::var_os("PQ_LIB_DIR").is_some()
        || shell::works("pkg-config", &["--exists", "libpq"])
        || shell::probe(Command::new("pg_config").arg("--libdir")).is_ok_and(|output| {
            // Not pg_config alone: Debian has one in a package without the library to link.
            linkable(Path::new(String::from_utf8_lossy(&output.stdout).trim()))
        })
}

fn linkable(folder: &Path) -> bool {
    ["libpq.so", "libpq.a", "libpq.dylib"].iter().any(|library| folder.join(library).exists())
}

/// The first program of this name on the path.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    paths().into_iter().map(|dir| dir.join(program)).find(|path| path.is_file())
}

fn paths() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

/// Version number in a folder's name; `9.6` sorts below `15`.
fn version(dir: &Path) -> u32 {
    let name = dir.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    name.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: Machine = Machine { apt: false, root: false, sudo: false, docker: false };

    #[test]
    fn a_complete_machine_needs_nothing() {
        assert_eq!(plan(&[], BARE), Plan::Nothing);
    }

    #[test]
    fn root_on_debian_installs_only_what_is_missing() {
        let machine = Machine { apt: true, root: true, docker: true, ..BARE };
        let expected = Plan::Apt { sudo: false, packages: vec!["rabbitmq-server"] };
        assert_eq!(plan(&[Need::RabbitMq], machine), expected);
    }

    #[test]
    fn sudo_without_password_serves_as_well() {
        let machine = Machine { apt: true, sudo: true, ..BARE };
        let expected = Plan::Apt { sudo: true, packages: vec!["postgresql", "libpq-dev"] };
        assert_eq!(plan(&[Need::Postgres, Need::Libpq], machine), expected);
    }

    #[test]
    fn a_folder_with_only_the_runtime_library_is_not_enough_to_link() {
        let dir = env::temp_dir().join(format!("xtask-libpq-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("libpq.so.5"), "").unwrap();
        let without = linkable(&dir);
        fs::write(dir.join("libpq.so"), "").unwrap();
        let with = linkable(&dir);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!((without, with), (false, true));
    }

    #[test]
    fn an_ordinary_user_on_debian_takes_containers() {
        let machine = Machine { apt: true, docker: true, ..BARE };
        assert_eq!(plan(&[Need::Postgres, Need::RabbitMq], machine), Plan::Containers);
    }

    #[test]
    fn a_container_is_no_library() {
        let machine = Machine { docker: true, ..BARE };
        let Plan::Ask(text) = plan(&[Need::RabbitMq, Need::Libpq], machine) else {
            panic!("a person must install libpq")
        };
        assert!(text.contains("libpq-dev") && text.contains("rabbitmq-server"), "{text}");
        let Plan::Ask(text) = plan(&[Need::PgBouncer], machine) else {
            panic!("a person must install the pooler")
        };
        assert!(text.contains("PgBouncer 1.18"), "{text}");
    }

    #[test]
    fn without_any_means_the_error_names_the_package() {
        let Plan::Ask(text) = plan(&[Need::RabbitMq], BARE) else { panic!("nothing can be done") };
        assert!(text.contains("rabbitmq-server") && text.contains("AMQP_URL"), "{text}");
    }

    #[test]
    fn the_newest_server_comes_first() {
        assert!(version(Path::new("/usr/lib/postgresql/15")) > version(Path::new("/x/9.6")));
    }
}
