//! A RabbitMQ that belongs to one test: to kill, freeze, starve and misconfigure. What these tests do
//! would disturb every other test on the shared broker.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::PATIENCE;

/// Ends everything when its input closes: when [`Node`] is dropped, and also when the test is killed.
const KEEPER: &str =
    r#"read -r _; for pid in $(cat "$1/pids"); do kill -s KILL -- "-$pid"; done; rm -rf -- "$1""#;

/// A private broker. Dropping it kills it and removes its data.
pub struct Node {
    dir: PathBuf,
    scripts: PathBuf,
    port: u16,
    environment: Vec<(&'static str, String)>,
    epmd: Child,
    server: Child,
    keeper: Child,
}

impl Node {
    /// Starts a broker with `extra` lines of configuration (`max_message_size = 100000`) and waits
    /// until it answers. Takes some seconds.
    #[must_use]
    pub fn start(extra: &str) -> Self {
        let name = format!("counterfoil-node-{}", uuid::Uuid::now_v7().simple());
        let dir = std::env::temp_dir().join(name);
        for part in ["mnesia", "log", "config", "schema"] {
            fs::create_dir_all(dir.join(part)).expect("a folder for the broker");
        }
        let [port, dist_port, epmd_port] = ports();
        let config = format!("listeners.tcp.1 = 127.0.0.1:{port}\nlog.console = true\n{extra}\n");
        for (file, text) in [
            ("rabbitmq.conf", config.as_str()),
            ("rabbitmq-env.conf", ""),
            ("advanced.config", "[].\n"),
            ("enabled_plugins", "[].\n"),
            ("pids", ""),
        ] {
            fs::write(dir.join(file), text).expect("a file for the broker");
        }
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&dir)
            // Out of reach of what ends the test and its group.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let environment = environment(&dir, port, dist_port, epmd_port);
        let mut epmd = Command::new(epmd_program());
        epmd.args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"]);
        let epmd = spawn(epmd, &dir.join("epmd.log"));
        let scripts = scripts();
        let server = boot(&scripts, &dir, &environment);
        let node = Self { dir, scripts, port, environment, epmd, server, keeper };
        node.note();
        node.ready();
        node
    }

    /// Its address, for the user `guest` on the virtual host `/`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("guest", "guest")
    }

    /// Its address for another user.
    #[must_use]
    pub fn url_of(&self, user: &str, password: &str) -> String {
        format!("amqp://{user}:{password}@127.0.0.1:{}/%2f", self.port)
    }

    /// Runs `rabbitmqctl`; returns what it printed.
    pub fn ctl(&self, args: &[&str]) -> String {
        let mut command = Command::new(self.scripts.join("rabbitmqctl"));
        let output = command
            .arg("--quiet")
            .args(args)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::null())
            .output()
            .expect("rabbitmqctl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rabbitmqctl {args:?} failed: {text}{error}");
        text
    }

    /// Kills the broker as a power cut would.
    pub fn kill(&mut self) {
        self.server.kill().expect("kills");
        self.server.wait().expect("waits");
    }

    /// Starts the killed broker again: the same port, the same data.
    pub fn restart(&mut self) {
        self.server = boot(&self.scripts, &self.dir, &self.environment);
        self.note();
        self.ready();
    }

    /// Freezes the broker: connections stay open and nothing answers.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Ends [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.server.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("signals");
    }

    /// What the keeper is to kill.
    fn note(&self) {
        let pids = format!("{} {}\n", self.epmd.id(), self.server.id());
        fs::write(self.dir.join("pids"), pids).expect("written");
    }

    fn ready(&self) {
        let deadline = Instant::now() + PATIENCE / 2;
        while !answers(self.port) {
            let console = || fs::read_to_string(self.dir.join("console.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the broker does not start:\n{}", console());
            sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        for child in [&mut self.keeper, &mut self.server, &mut self.epmd] {
            let _ = child.wait();
        }
    }
}

fn boot(scripts: &Path, dir: &Path, environment: &[(&'static str, String)]) -> Child {
    let mut server = Command::new(scripts.join("rabbitmq-server"));
    server.envs(environment.iter().map(|(name, value)| (name, value)));
    spawn(server, &dir.join("console.log"))
}

/// Everything the scripts would otherwise take from the machine's own broker.
fn environment(
    dir: &Path,
    port: u16,
    dist_port: u16,
    epmd_port: u16,
) -> Vec<(&'static str, String)> {
    let path = |name: &str| dir.join(name).display().to_string();
    vec![
        ("HOME", dir.display().to_string()),
        ("ERL_EPMD_PORT", epmd_port.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_NODENAME", format!("counterfoil-test-{port}@localhost")),
        ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_NODE_PORT", port.to_string()),
        ("RABBITMQ_DIST_PORT", dist_port.to_string()),
        ("RABBITMQ_MNESIA_BASE", path("mnesia")),
        ("RABBITMQ_LOG_BASE", path("log")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins")),
        ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
        ("RABBITMQ_CONF_ENV_FILE", path("rabbitmq-env.conf")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced.config")),
        ("RABBITMQ_GENERATED_CONFIG_DIR", path("config")),
        ("RABBITMQ_SCHEMA_DIR", path("schema")),
        ("RABBITMQ_PID_FILE", path("pid")),
        // The script becomes the Erlang machine instead of its parent: the child is the broker.
        ("RABBITMQ_ALLOW_INPUT", "1".to_owned()),
        ("RABBITMQ_SERVER_START_ARGS", "-noinput".to_owned()),
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1}".to_owned(),
        ),
    ]
}

fn spawn(mut command: Command, log: &Path) -> Child {
    let log = File::options().create(true).append(true).open(log).expect("a log");
    command.current_dir("/").process_group(0).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("a log")).stderr(log);
    command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()))
}

/// The folder of the broker's scripts: of the services of the run, or where packages put them.
fn scripts() -> PathBuf {
    let recorded = || {
        let record = fs::read_to_string(std::env::var_os("COUNTERFOIL_SERVICES")?).ok()?;
        let record: serde_json::Value = serde_json::from_str(&record).ok()?;
        let server = record.pointer("/rabbitmq/private/server")?.as_str()?;
        Some(Path::new(server).parent()?.to_owned())
    };
    let usual = ["/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/local/sbin"];
    recorded()
        .into_iter()
        .chain(usual.map(PathBuf::from))
        .find(|dir| dir.join("rabbitmq-server").is_file())
        .expect("this test starts a broker of its own and needs the programs of RabbitMQ (Debian: rabbitmq-server)")
}

fn epmd_program() -> PathBuf {
    let runtimes = fs::read_dir("/usr/lib/erlang").into_iter().flatten().flatten();
    let inside = runtimes.map(|entry| entry.path().join("bin/epmd"));
    let usual = ["/usr/bin/epmd", "/opt/homebrew/bin/epmd", "/usr/local/bin/epmd"];
    let found = usual.into_iter().map(PathBuf::from).chain(inside).find(|epmd| epmd.is_file());
    found.unwrap_or_else(|| PathBuf::from("epmd"))
}

/// Three free ports below the range of outgoing connections: a restarted broker must find its own
/// free, not taken by a client that tries to reach it.
fn ports() -> [u16; 3] {
    let mut held = Vec::new();
    while held.len() < 3 {
        let port = fastrand::u16(20_000..32_000);
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(|it| (port, it)));
    }
    [held[0].0, held[1].0, held[2].0]
}

/// Whether something speaks AMQP 0-9-1 there.
fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let attempt = || -> std::io::Result<u8> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        Ok(kind[0])
    };
    attempt().is_ok_and(|kind| kind == 1)
}
