//! The commands of `compose.yaml`, run with the programs of this build instead of images: the same
//! order, the same environment but for addresses and sizes, the same restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_yaml_ng::Value;
use support::PATIENCE;
use support::broker::rabbit_settings;
use support::database::Database;
use support::process::{Process, binary};
use support::services::amqp_url;
use transport::Topology;
use transport::rabbitmq::RabbitMq;

const COMPOSE: &str = include_str!("../../compose.yaml");
/// Sizes of this run, by the variables that compose takes them from.
const SIZES: [(&str, &str); 2] = [("DEMO_ORDERS", "600"), ("DEMO_CRASH_EVERY", "60")];

#[derive(Deserialize)]
struct Compose {
    services: BTreeMap<String, Service>,
}

#[derive(Deserialize)]
struct Service {
    build: Option<Value>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    depends_on: BTreeMap<String, Dependency>,
    restart: Option<String>,
    #[serde(default)]
    deploy: Deploy,
}

#[derive(Deserialize)]
struct Dependency {
    condition: String,
}

#[derive(Deserialize)]
#[serde(default)]
struct Deploy {
    replicas: usize,
}

impl Default for Deploy {
    fn default() -> Self {
        Self { replicas: 1 }
    }
}

fn services() -> BTreeMap<String, Service> {
    let mut yaml: Value = serde_yaml_ng::from_str(COMPOSE).expect("compose.yaml is YAML");
    yaml.apply_merge().expect("merges");
    serde_yaml_ng::from_value::<Compose>(yaml)
        .expect("compose.yaml has the form this test knows")
        .services
}

/// What stands for the containers' surroundings here.
struct Surroundings {
    database: Database,
    shop: String,
}

impl Surroundings {
    fn command(&self, service: &Service) -> Command {
        let (program, args) =
            service.command.split_first().expect("a service of ours names its command");
        let mut command = Command::new(binary(program));
        command.args(args).env("DEMO_NAME", &self.shop);
        for (name, value) in &service.environment {
            command.env(name, self.value(value));
        }
        command
    }

    fn value(&self, value: &str) -> String {
        if value.starts_with("postgres://") {
            return self.database.url.clone();
        }
        if value.starts_with("amqp://") {
            return amqp_url();
        }
        let Some(variable) = value.strip_prefix("${") else { return value.to_owned() };
        let (name, _) = variable.split_once(":-").expect("a variable with a default");
        let (_, size) =
            SIZES.iter().find(|(known, _)| *known == name).expect("a variable this test sets");
        (*size).to_owned()
    }
}

/// The services that run until they are stopped, restarted when they fail.
struct Supervisor {
    stop: Arc<AtomicBool>,
    running: Arc<Mutex<Vec<Running>>>,
    watching: Option<std::thread::JoinHandle<()>>,
}

struct Running {
    service: String,
    command: Command,
    child: Child,
    restarts: usize,
}

impl Supervisor {
    fn new() -> Self {
        let (stop, running) =
            (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::<Running>::new())));
        let (stopped, watched) = (stop.clone(), running.clone());
        let watching = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                for one in &mut *watched.lock().unwrap() {
                    if one.child.try_wait().expect("waits").is_some_and(|status| !status.success())
                    {
                        one.child = one.command.spawn().expect("starts again");
                        one.restarts += 1;
                    }
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self { stop, running, watching: Some(watching) }
    }

    fn start(&self, service: &str, mut command: Command) {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("starts");
        let running = Running { service: service.to_owned(), command, child, restarts: 0 };
        self.running.lock().unwrap().push(running);
    }

    /// Stops all politely. Each with its restarts and how it ended.
    fn stop(&mut self) -> Vec<(String, usize, ExitStatus)> {
        self.end_watch();
        let mut running = self.running.lock().unwrap();
        for one in &*running {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(one.child.id()).expect("a pid"));
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signals");
        }
        let until = Instant::now() + PATIENCE / 4;
        let ended = running.iter_mut().map(|one| {
            let status = loop {
                if let Some(status) = one.child.try_wait().expect("waits") {
                    break status;
                }
                assert!(Instant::now() < until, "{} does not stop", one.service);
                std::thread::sleep(Duration::from_millis(10));
            };
            (one.service.clone(), one.restarts, status)
        });
        ended.collect()
    }

    fn end_watch(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(watching) = self.watching.take() {
            watching.join().expect("the watch did not fail");
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(watching) = self.watching.take() {
            let _ = watching.join();
        }
        for one in &mut *self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            let _ = one.child.kill();
            let _ = one.child.wait();
        }
    }
}

#[test]
fn compose_tells_the_story_to_its_end() {
    let services = services();
    let surroundings = Surroundings {
        database: Database::empty_postgres(),
        shop: format!("compose-{}-{}", std::process::id(), uuid::Uuid::new_v4().simple()),
    };
    let mut supervisor = Supervisor::new();
    // Others' images are what the tests' private services stand for.
    let mut up: BTreeSet<&str> = services
        .iter()
        .filter(|(_, service)| service.build.is_none())
        .map(|(name, _)| &**name)
        .collect();
    assert_eq!(up, BTreeSet::from(["postgres", "rabbitmq"]), "what `cargo xtask` borrows");
    let mut verdict = String::new();
    while up.len() < services.len() {
        let next = services.iter().find(|(name, service)| {
            !up.contains(&***name)
                && service.depends_on.keys().all(|dependency| up.contains(&**dependency))
        });
        let (name, service) = next.expect("depends_on has no circle");
        up.insert(name);
        if service.restart.is_some() {
            for _ in 0..service.deploy.replicas {
                supervisor.start(name, surroundings.command(service));
            }
        } else {
            let mut process = Process::spawn(surroundings.command(service));
            let status = process.finish();
            assert!(status.success(), "{name} ended with {status}:\n{}", process.output);
            verdict.clone_from(&process.output);
        }
    }
    assert!(verdict.contains("right to the cent"), "the last one to end is `check`:\n{verdict}");

    for (service, restarts, status) in supervisor.stop() {
        assert!(status.success(), "{service} stopped with {status}");
        assert_eq!(restarts > 0, service != "relay", "{service} was restarted {restarts} times");
    }
    clean(&surroundings.shop);
}

#[test]
fn a_service_waits_for_an_end_exactly_where_there_is_one() {
    let services = services();
    for (name, service) in &services {
        for (on, Dependency { condition }) in &service.depends_on {
            let other = &services[on];
            let expected = match (other.build.is_some(), other.restart.is_some()) {
                (false, _) => "service_healthy",
                (true, true) => "service_started",
                (true, false) => "service_completed_successfully",
            };
            assert_eq!(condition, expected, "{name} depends on {on}");
        }
        assert!(matches!(service.restart.as_deref(), None | Some("on-failure")), "{name}");
    }
}

fn clean(shop: &str) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let broker = RabbitMq::new(&rabbit_settings(amqp_url())).expect("AMQP_URL is usable");
        for queue in ["billing", "naive"] {
            broker.delete_queue(&format!("{shop}.{queue}")).await.expect("deleted");
        }
        broker.delete_exchange(shop).await.expect("deleted");
    });
}
