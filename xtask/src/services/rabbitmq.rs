//! A throwaway RabbitMQ broker with an Erlang port mapper of its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::process::Process;
use super::record::{Kind, PrivateRabbitMq, RabbitMq, Record};
use super::{Started, ports, tail};
use crate::shell;
use crate::signals::Signals;

const PATIENCE: Duration = Duration::from_secs(120);

/// Launches a broker and records it; [`ready`] waits for it.
pub(crate) fn launch(scripts: &Path, record: &mut Record) -> Result<Started<RabbitMq>> {
    let [port, dist_port, epmd_port] = ports::free()?;
    let home = record.dir.join("rabbitmq");
    let mut broker = PrivateRabbitMq {
        port,
        dist_port,
        epmd_port,
        process: None,
        epmd: None,
        pid_file: home.join("pid"),
        data_dir: home.join("mnesia"),
        log_dir: home.join("log"),
        server: scripts.join("rabbitmq-server"),
        ctl: scripts.join("rabbitmqctl"),
        env: BTreeMap::new(),
    };
    broker.env = environment(&broker, &home, &record.run);
    record.rabbitmq = Some(of(&broker));
    record.save()?;

    configure(&broker, &home)?;
    // Started by us and not by the broker: that one would put it out of reach as a daemon.
    let mut epmd = Command::new(epmd());
    epmd.args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"]);
    let epmd = spawn(&mut epmd, &home.join("epmd.log"))?;
    broker.epmd = Some(Process::of(epmd.id()));
    let mut server = Command::new(&broker.server);
    let child = spawn(server.envs(&broker.env), &home.join("console.log"))?;
    broker.process = Some(Process::of(child.id()));
    record.rabbitmq = Some(of(&broker));
    record.save()?;
    Ok(Started { child, helper: Some(epmd), service: of(&broker) })
}

/// Waits until the broker answers an AMQP protocol header.
pub(crate) fn ready(started: &mut Started<RabbitMq>, signals: &Signals) -> Result<()> {
    let Some(broker) = &started.service.private else { return Ok(()) };
    let console = broker.pid_file.with_file_name("console.log");
    let deadline = Instant::now() + PATIENCE;
    loop {
        signals.check()?;
        if let Some(status) = started.child.try_wait()? {
            bail!("rabbitmq-server ended with {status}:\n{}", tail(&console));
        }
        if answers(broker.port) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("rabbitmq-server does not answer on port {}:\n{}", broker.port, tail(&console));
        }
        sleep(Duration::from_millis(100));
    }
}

fn of(broker: &PrivateRabbitMq) -> RabbitMq {
    let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", broker.port);
    RabbitMq { kind: Kind::Private, url, private: Some(broker.clone()) }
}

/// Everything the scripts would otherwise take from the machine's own broker.
fn environment(broker: &PrivateRabbitMq, home: &Path, run: &str) -> BTreeMap<String, String> {
    let path = |name: &str| home.join(name).display().to_string();
    let pairs = [
        ("HOME", home.display().to_string()),
        ("ERL_EPMD_PORT", broker.epmd_port.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_NODENAME", format!("counterfoil-{run}@localhost")),
        ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_NODE_PORT", broker.port.to_string()),
        ("RABBITMQ_DIST_PORT", broker.dist_port.to_string()),
        ("RABBITMQ_MNESIA_BASE", broker.data_dir.display().to_string()),
        ("RABBITMQ_LOG_BASE", broker.log_dir.display().to_string()),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins")),
        ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
        ("RABBITMQ_CONF_ENV_FILE", path("rabbitmq-env.conf")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced.config")),
        ("RABBITMQ_GENERATED_CONFIG_DIR", path("config")),
        ("RABBITMQ_SCHEMA_DIR", path("schema")),
        ("RABBITMQ_PID_FILE", broker.pid_file.display().to_string()),
        // The script then becomes the Erlang machine instead of its parent, so that the process
        // we record is the broker; `-noinput` is what the script leaves out in that mode.
        ("RABBITMQ_ALLOW_INPUT", "1".to_owned()),
        ("RABBITMQ_SERVER_START_ARGS", "-noinput".to_owned()),
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1}".to_owned(),
        ),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn configure(broker: &PrivateRabbitMq, home: &Path) -> Result<()> {
    for dir in [home, &broker.data_dir, &broker.log_dir, &home.join("config"), &home.join("schema")]
    {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let config = format!("listeners.tcp.1 = 127.0.0.1:{}\nlog.console = true\n", broker.port);
    for (name, text) in [
        ("rabbitmq.conf", config.as_str()),
        ("rabbitmq-env.conf", ""),
        ("advanced.config", "[].\n"),
        ("enabled_plugins", "[].\n"),
    ] {
        fs::write(home.join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
}

fn spawn(command: &mut Command, log: &Path) -> Result<Child> {
    let log = File::create(log).context("cannot create a log")?;
    // A group of its own: Ctrl-C at the terminal must not take the broker from under a test.
    command.current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    shell::announce(command);
    command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))
}

/// The port mapper: on the path, or inside the Erlang installation.
fn epmd() -> PathBuf {
    let inside = || {
        let runtimes = fs::read_dir("/usr/lib/erlang").ok()?;
        runtimes.flatten().map(|entry| entry.path().join("bin/epmd")).find(|epmd| epmd.is_file())
    };
    super::install::on_path("epmd").or_else(inside).unwrap_or_else(|| PathBuf::from("epmd"))
}

/// Whether something speaks AMQP 0-9-1 there: it replies to the header with a method frame.
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn only_a_method_frame_counts_as_an_answer() {
        for (reply, expected) in
            [(b"\x01\x00\x00".as_slice(), true), (b"AMQP", false), (b"", false)]
        {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let broker = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.read_exact(&mut [0; 8]).unwrap();
                stream.write_all(reply).unwrap();
            });
            assert_eq!(answers(port), expected);
            broker.join().unwrap();
        }
    }
}
