//! A PostgreSQL server of one test that shows certificates of the test's own making.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::pgbouncer::{account, free_port};

/// What the server shows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// A certificate for its name, by the authority.
    Good,
    /// The same, until yesterday.
    Expired,
    /// A certificate for another name.
    OtherName,
    /// A certificate for its name, by an authority nobody knows.
    OtherAuthority,
    /// Nothing: it speaks no TLS.
    Nothing,
}

/// The server. Dropping it stops it.
pub struct TlsDatabase {
    /// A name of this machine that does not say so.
    pub host: String,
    home: PathBuf,
    files: PathBuf,
    port: u16,
    server: Option<Child>,
}

impl TlsDatabase {
    /// Starts one that asks for the password, and the user `certified` for a certificate as well.
    #[must_use]
    pub fn start(password: &str) -> Self {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
        let host = host.trim().to_owned();
        assert!(!host.starts_with("localhost"), "this machine needs a name of its own");
        let unique = uuid::Uuid::now_v7().simple();
        let folder = |what: &str| std::env::temp_dir().join(format!("cf-{what}-{unique}"));
        let (home, files) = (folder("tls"), folder("pem"));
        for dir in [&home, &files] {
            fs::create_dir(dir).expect("a folder");
            fs::set_permissions(dir, Permissions::from_mode(0o700)).expect("private");
        }
        let server = Self { host, home, files, port: free_port(), server: None };
        server.make_certificates();
        let secret = server.home.join("password");
        fs::write(&secret, password).expect("written");
        server.hand_over(&server.home);
        server.hand_over(&secret);
        let mut initdb = server.program("initdb");
        initdb.arg("--pgdata").arg(server.data()).arg("--pwfile").arg(&secret);
        initdb.args(["--username=counterfoil", "--auth=scram-sha-256", "--locale=C", "--no-sync"]);
        run(&mut initdb);
        fs::write(
            server.data().join("pg_hba.conf"),
            "hostssl all certified all scram-sha-256 clientcert=verify-full\nhost all all all scram-sha-256\n",
        )
        .expect("written");
        server
    }

    /// Starts it, or starts it anew, showing this.
    pub fn show(&mut self, shows: Shows) {
        self.stop();
        for (from, to) in [("crt", "server.crt"), ("key", "server.key")] {
            let to = self.data().join(to);
            fs::copy(self.files.join(format!("{shows:?}.{from}")), &to).expect("copied");
            fs::set_permissions(&to, Permissions::from_mode(0o600)).expect("private");
            self.hand_over(&to);
        }
        let authority = self.data().join("ca.crt");
        fs::copy(self.authority(), &authority).expect("copied");
        self.hand_over(&authority);
        let log = File::create(self.files.join("log")).expect("a log");
        let mut postgres = self.program("postgres");
        postgres.arg("-D").arg(self.data()).process_group(0);
        for setting in [
            "listen_addresses=*".to_owned(),
            format!("port={}", self.port),
            "unix_socket_directories=".to_owned(),
            "fsync=off".to_owned(),
            format!("ssl={}", if shows == Shows::Nothing { "off" } else { "on" }),
            "ssl_ca_file=ca.crt".to_owned(),
        ] {
            postgres.arg("-c").arg(setting);
        }
        postgres.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.server = Some(postgres.spawn().expect("starts"));
        let until = Instant::now() + PATIENCE / 4;
        while !self.log().contains("ready to accept connections") {
            assert!(Instant::now() < until, "not ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The address for a user.
    #[must_use]
    pub fn url(&self, user: &str, password: &str, parameters: &str) -> String {
        format!("postgres://{user}:{password}@{}:{}/postgres{parameters}", self.host, self.port)
    }

    /// The authority's certificate.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.files.join("ca.crt")
    }

    /// The certificate of the user `certified`, and its key.
    #[must_use]
    pub fn client(&self) -> (PathBuf, PathBuf) {
        (self.files.join("client.crt"), self.files.join("client.key"))
    }

    fn make_certificates(&self) {
        self.make_authority("ca");
        self.make_authority("other-ca");
        self.make(&format!("{:?}", Shows::Good), &self.host, "ca", "2");
        self.make(&format!("{:?}", Shows::Expired), &self.host, "ca", "-1");
        self.make(&format!("{:?}", Shows::OtherName), "other.example", "ca", "2");
        self.make(&format!("{:?}", Shows::OtherAuthority), &self.host, "other-ca", "2");
        self.make(&format!("{:?}", Shows::Nothing), &self.host, "ca", "2");
        self.make("client", "certified", "ca", "2");
    }

    fn make_authority(&self, name: &str) {
        let mut make = self.openssl("req");
        make.args(["-x509", "-days", "2", "-subj", &format!("/CN={name}")]).args(NEW_KEY);
        make.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")]);
        run(&mut make);
    }

    fn make(&self, file: &str, name: &str, authority: &str, days: &str) {
        let mut request = self.openssl("req");
        request.args(["-subj", &format!("/CN={name}")]).args(NEW_KEY);
        request.args(["-keyout", &format!("{file}.key"), "-out", &format!("{file}.csr")]);
        run(&mut request);
        fs::write(self.files.join("ext"), format!("subjectAltName=DNS:{name}")).expect("written");
        let mut sign = self.openssl("x509");
        sign.args(["-req", "-in", &format!("{file}.csr"), "-days", days, "-extfile", "ext"]);
        sign.args(["-CA", &format!("{authority}.crt"), "-CAkey", &format!("{authority}.key")]);
        sign.args(["-CAcreateserial", "-out", &format!("{file}.crt")]);
        run(&mut sign);
    }

    fn openssl(&self, command: &str) -> Command {
        let mut openssl = Command::new("openssl");
        openssl.arg(command).current_dir(&self.files);
        openssl
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.files.join("log")).unwrap_or_default()
    }

    fn hand_over(&self, path: &Path) {
        if let Some((uid, gid)) = account() {
            chown(path, Some(uid), Some(gid)).expect("handed over");
        }
    }

    fn program(&self, name: &str) -> Command {
        let found = Command::new("pg_config").arg("--bindir").output().expect("pg_config");
        let bin = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim());
        let mut command = Command::new(bin.join(name));
        command.current_dir(&self.home);
        if let Some((uid, gid)) = account() {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(server.id()).expect("a pid"));
            // Fast: SIGKILL would leave its children with the port.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
            let _ = server.wait();
        }
    }
}

const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Drop for TlsDatabase {
    fn drop(&mut self) {
        self.stop();
        for dir in [&self.home, &self.files] {
            let _ = fs::remove_dir_all(dir);
        }
    }
}
