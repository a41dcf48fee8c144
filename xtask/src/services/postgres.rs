//! A throwaway PostgreSQL server.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::unistd::{Uid, User};

use super::ports;
use super::process::Process;
use super::record::{Account, Kind, Postgres, PrivatePostgres, Record};
use super::{Started, tail};
use crate::shell;
use crate::signals::Signals;

/// Known to everybody and still required: tests of a wrong password mean something.
const USER: &str = "counterfoil";
const PASSWORD: &str = "counterfoil";
/// Longest path of a unix socket is 107 bytes; `/.s.PGSQL.65535` takes 15 of them.
const LONGEST_SOCKET_DIR: usize = 90;
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a server and records it.
pub(crate) fn start(
    bin_dir: &Path,
    record: &mut Record,
    signals: &Signals,
) -> Result<Started<Postgres>> {
    let run_as = account()?;
    let home = home(&record.dir, &record.run, run_as.as_ref())?;
    let [port] = ports::free()?;
    let socket_dir = if home.as_os_str().len() <= LONGEST_SOCKET_DIR {
        home.join("s")
    } else {
        PathBuf::from("/tmp").join(format!("cf-{}", record.run))
    };
    let mut server = PrivatePostgres {
        port,
        user: USER.to_owned(),
        password: PASSWORD.to_owned(),
        process: None,
        data_dir: home.join("data"),
        log: home.join("server.log"),
        home,
        socket_dir,
        bin_dir: bin_dir.to_owned(),
        run_as,
    };
    // Recorded before anything exists, so that a sweep finds what a killed xtask leaves.
    record.postgres = Some(of(&server));
    record.save()?;

    initialise(&server, record.durable)?;
    let child = launch(&server)?;
    server.process = Some(Process::of(child.id()));
    record.postgres = Some(of(&server));
    record.save()?;
    let mut started = Started { child, helper: None, service: of(&server) };
    ready(&server, &mut started.child, signals)?;
    Ok(started)
}

fn of(server: &PrivatePostgres) -> Postgres {
    let url = format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/postgres", server.port);
    Postgres { kind: Kind::Private, url, private: Some(server.clone()) }
}

/// The account for the server: it refuses to run as root.
fn account() -> Result<Option<Account>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name).context("cannot look up an account")? {
            let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
            return Ok(Some(Account { name: user.name, uid, gid }));
        }
    }
    bail!(
        "PostgreSQL refuses to run as root, and there is no account `postgres` or `nobody`; \
         run this command as another user"
    )
}

/// A folder that the account owns and can reach.
fn home(run_dir: &Path, run: &str, account: Option<&Account>) -> Result<PathBuf> {
    let inside = run_dir.join("postgres");
    make(&inside, account)?;
    if account.is_none_or(|account| reaches(account, &inside)) {
        return Ok(inside);
    }
    // A clone under a private home directory: the account may not even walk there.
    fs::remove_dir(&inside).with_context(|| format!("cannot remove {}", inside.display()))?;
    let outside = std::env::temp_dir().join(format!("counterfoil-{run}"));
    make(&outside, account)?;
    if account.is_none_or(|account| reaches(account, &outside)) {
        return Ok(outside);
    }
    bail!(
        "account `{}` can write neither below {} nor below {}; set TMPDIR to a folder it can reach",
        account.map_or("", |account| account.name.as_str()),
        run_dir.display(),
        std::env::temp_dir().display()
    )
}

fn make(dir: &Path, account: Option<&Account>) -> Result<()> {
    fs::create_dir(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    fs::set_permissions(dir, Permissions::from_mode(0o700))
        .with_context(|| format!("cannot set the mode of {}", dir.display()))?;
    hand_over(dir, account)
}

fn hand_over(path: &Path, account: Option<&Account>) -> Result<()> {
    let Some(account) = account else { return Ok(()) };
    chown(path, Some(account.uid), Some(account.gid))
        .with_context(|| format!("cannot hand {} to {}", path.display(), account.name))
}

fn reaches(account: &Account, dir: &Path) -> bool {
    let mut test = Command::new("test");
    test.arg("-w").arg(dir).current_dir("/").uid(account.uid).gid(account.gid);
    shell::probe(&mut test).is_ok_and(|output| output.status.success())
}

/// A server program, run as the account that owns the data.
fn program(server: &PrivatePostgres, name: &str) -> Command {
    let mut command = Command::new(server.bin_dir.join(name));
    command.current_dir(&server.home).stdin(Stdio::null());
    if let Some(account) = &server.run_as {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

fn initialise(server: &PrivatePostgres, durable: bool) -> Result<()> {
    make(&server.socket_dir, server.run_as.as_ref())?;
    let password_file = server.home.join("password");
    fs::write(&password_file, PASSWORD).context("cannot write the password file")?;
    hand_over(&password_file, server.run_as.as_ref())?;
    let mut initdb = program(server, "initdb");
    initdb.arg("--pgdata").arg(&server.data_dir).args(["--username", USER]);
    initdb.arg("--pwfile").arg(&password_file);
    initdb.args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]);
    shell::output(&mut initdb)?;
    let path = server.data_dir.join("postgresql.conf");
    let mut settings = fs::read_to_string(&path).context("cannot read postgresql.conf")?;
    // In the file and not on the command line, so that a restart by a test keeps them.
    settings.push_str(&self::settings(server, durable));
    fs::write(&path, settings).context("cannot write postgresql.conf")
}

fn settings(server: &PrivatePostgres, durable: bool) -> String {
    let fsync = if durable { "on" } else { "off" };
    format!(
        "\nlisten_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\n\
         fsync = {fsync}\nsynchronous_commit = on\nmax_connections = 300\n\
         max_prepared_transactions = 20\npassword_encryption = 'scram-sha-256'\n\
         timezone = 'UTC'\nlog_timezone = 'UTC'\n",
        server.port,
        server.socket_dir.display().to_string().replace('\'', "''"),
    )
}

fn launch(server: &PrivatePostgres) -> Result<Child> {
    let log = File::create(&server.log).context("cannot create the server's log")?;
    // A restart through pg_ctl opens it as that account.
    hand_over(&server.log, server.run_as.as_ref())?;
    let mut postgres = program(server, "postgres");
    postgres.arg("-D").arg(&server.data_dir);
    // A group of its own: Ctrl-C at the terminal must not take the server from under a test.
    postgres.process_group(0).stdout(log.try_clone()?).stderr(log);
    shell::announce(&postgres);
    postgres.spawn().context("cannot start postgres")
}

/// Waits until a statement succeeds over TCP with the password.
fn ready(server: &PrivatePostgres, child: &mut Child, signals: &Signals) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut psql = Command::new(server.bin_dir.join("psql"));
    psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--host=127.0.0.1"])
        .arg(format!("--port={}", server.port))
        .args(["--username", USER, "--dbname=postgres", "--command=select 1"])
        .env("PGPASSWORD", PASSWORD)
        .env("PGCONNECT_TIMEOUT", "5");
    shell::announce(&psql);
    loop {
        signals.check()?;
        if let Some(status) = child.try_wait()? {
            bail!("postgres ended with {status}:\n{}", tail(&server.log));
        }
        let answer = shell::probe(&mut psql)?;
        if answer.status.success() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let said = String::from_utf8_lossy(&answer.stderr).into_owned();
            bail!("postgres is not ready: {said}\n{}", tail(&server.log));
        }
        sleep(Duration::from_millis(50));
    }
}
