//! A private PgBouncer that gives out a server connection per transaction.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::process::Process;

/// Server connections per database: fewer than there are clients, so that statements of one client
/// meet several of them.
const SERVERS: u32 = 3;

/// A pooler in front of one database. Dropping it stops it.
pub struct PgBouncer {
    /// The database by way of the pooler.
    pub url: String,
    home: PathBuf,
    process: Process,
}

impl PgBouncer {
    /// Starts one in front of `database`.
    #[must_use]
    pub fn before(database: &str) -> Self {
        let mut url = url::Url::parse(database).expect("a URL");
        let port = free_port();
        let home =
            std::env::temp_dir().join(format!("cf-pgbouncer-{}", uuid::Uuid::now_v7().simple()));
        std::fs::create_dir(&home).expect("a folder");
        let password = |url: &url::Url| url.password().unwrap_or_default().to_owned();
        std::fs::write(
            home.join("users.txt"),
            format!("\"{}\" \"{}\"\n", url.username(), password(&url)),
        )
        .expect("written");
        let ini = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = {SERVERS}\nmin_pool_size = {SERVERS}\nserver_round_robin = 1\nmax_client_conn = 200\n\
             server_login_retry = 1\nlog_connections = 0\nlog_disconnections = 0\n",
            url.host_str().expect("a host"),
            url.port().unwrap_or(5432),
            home.join("users.txt").display(),
        );
        std::fs::write(home.join("pgbouncer.ini"), ini).expect("written");
        if let Some((uid, gid)) = account() {
            for path in [home.clone(), home.join("users.txt"), home.join("pgbouncer.ini")] {
                chown(&path, Some(uid), Some(gid)).expect("handed over");
            }
        }
        std::fs::set_permissions(&home, PermissionsExt::from_mode(0o700)).expect("private");
        url.set_port(Some(port)).expect("a port");
        let process = start(&home);
        Self { url: url.into(), home, process }
    }

    /// Kills it as a power cut would, and starts it anew under the same address.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = start(&self.home);
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.process.kill();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

fn start(home: &std::path::Path) -> Process {
    let mut command = Command::new(program());
    command.arg(home.join("pgbouncer.ini")).current_dir("/");
    if let Some((uid, gid)) = account() {
        command.uid(uid).gid(gid);
    }
    let mut process = Process::spawn(command);
    process.wait_for("process up");
    process
}

/// Where Debian puts it is not on an ordinary user's path.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|dir| dir.join("pgbouncer"))
        .find(|path| path.is_file())
        .expect("pgbouncer is installed: `cargo xtask test` does that (Debian: apt-get install pgbouncer)")
}

/// It refuses to run as root.
pub(crate) fn account() -> Option<(u32, u32)> {
    if !nix::unistd::Uid::effective().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("accounts");
    ["postgres", "nobody"].iter().find_map(|name| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

/// Below the range that outgoing connections take theirs from: a restart must find it free.
pub(crate) fn free_port() -> u16 {
    std::iter::repeat_with(|| fastrand::u16(20_000..32_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("endless")
}
