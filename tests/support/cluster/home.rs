//! The folder of a cluster, and the account that owns it.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::unistd::{Uid, User};

/// Waits for the end of the test process, whose end of the pipe closes however it dies, and removes
/// what is left. In a group of its own, so that what kills the test does not kill it too.
const GUARD: &str = r#"
cat > /dev/null
if [ -f "$1/data/postmaster.pid" ]; then
    read -r pid < "$1/data/postmaster.pid"
    if [ "$(readlink "/proc/$pid/cwd")" = "$1/data" ]; then
        kill -CONT "$pid" $(cat "/proc/$pid/task/$pid/children")
        kill -QUIT "$pid"
        tries=0
        while kill -0 "$pid" && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
        kill -KILL "$pid"
    fi
fi
[ "$2" = disk ] && umount "$1/data"
rm -rf "$1"
"#;

pub(super) struct Home {
    path: PathBuf,
    account: Option<(u32, u32)>,
    wal_beside: bool,
    guard: Child,
}

impl Home {
    pub(super) fn new() -> Self {
        Self::make(false, false)
    }

    pub(super) fn on_disk(mebibytes: u32, with_wal: bool) -> Self {
        assert!(
            Uid::effective().is_root(),
            "a test that fills a disk mounts a small one, which only root may: run it as root"
        );
        let home = Self::make(true, !with_wal);
        fs::create_dir(home.data()).expect("a folder");
        let (uid, gid) = home.account.expect("root runs the server as another");
        let options = format!("size={mebibytes}m,uid={uid},gid={gid},mode=0700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "counterfoil-test"]).arg(home.data());
        super::succeed(&mut mount);
        home
    }

    fn make(disk: bool, wal_beside: bool) -> Self {
        let account = Uid::effective().is_root().then(|| {
            let user = ["postgres", "nobody"]
                .iter()
                .find_map(|name| User::from_name(name).expect("accounts"))
                .expect("PostgreSQL refuses to run as root: there must be an account `postgres`");
            (user.uid.as_raw(), user.gid.as_raw())
        });
        let name = format!("cf-pg-{}-{:x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a temporary folder");
        fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("its mode");
        if let Some((uid, gid)) = account {
            chown(&path, Some(uid), Some(gid)).expect("its owner");
        }
        let path = path.canonicalize().expect("a path");
        let guard = Command::new("sh")
            .args(["-c", GUARD, "counterfoil-guard"])
            .arg(&path)
            .arg(if disk { "disk" } else { "" })
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a guard");
        Self { path, account, wal_beside, guard }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn wal(&self) -> Option<PathBuf> {
        self.wal_beside.then(|| self.path.join("wal"))
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("server.log")
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A program of the server, run as the account that owns the folder.
    pub(super) fn program(&self, name: &str) -> Command {
        let mut command = Command::new(programs().join(name));
        command.current_dir(&self.path);
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        command
    }

    pub(super) fn fill(&self) {
        let mut ballast = fs::File::create(self.data().join("ballast")).expect("a file");
        let block = vec![1; 4096];
        while ballast.write_all(&block).is_ok() {}
    }

    pub(super) fn free(&self) {
        fs::remove_file(self.data().join("ballast")).expect("a file");
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Where the server programs are: as the services of the test run found them, or the newest.
fn programs() -> PathBuf {
    let recorded = std::env::var_os("COUNTERFOIL_SERVICES")
        .and_then(|path| fs::read(path).ok())
        .and_then(|json| serde_json::from_slice::<serde_json::Value>(&json).ok())
        .and_then(|record| {
            record.pointer("/postgres/private/bin_dir")?.as_str().map(PathBuf::from)
        });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |dir: &Path| dir.file_name()?.to_str()?.parse::<u32>().ok();
    let mut installed: Vec<_> = installed.map(|entry| entry.path()).collect();
    installed.sort_by_key(|dir| std::cmp::Reverse(version(dir)));
    let installed = installed.into_iter().map(|dir| dir.join("bin"));
    recorded
        .into_iter()
        .chain(installed)
        .chain(std::env::split_paths(&path))
        .find(|dir| {
            ["initdb", "postgres", "pg_basebackup", "pg_dump"].iter().all(|p| dir.join(p).is_file())
        })
        .expect(
            "no server programs of PostgreSQL found: run `cargo xtask test`, which installs them",
        )
}
