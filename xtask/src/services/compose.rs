//! Containers in place of missing server binaries.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::record::{Compose, Kind, Postgres, RabbitMq};
use crate::signals::Signals;
use crate::{shell, workspace};

/// Whether `docker compose` exists and its engine runs.
pub(crate) fn usable() -> bool {
    shell::works("docker", &["compose", "version"]) && shell::works("docker", &["info"])
}

/// The project for a set of services.
pub(crate) fn project(run: &str) -> Result<Compose> {
    let root = workspace::root();
    let candidates = [root.join("compose.yaml"), root.join("deploy").join("compose.yaml")];
    let Some(file) = candidates.into_iter().find(|file| file.is_file()) else {
        bail!("there is no compose.yaml in {}", root.display());
    };
    Ok(Compose { project: format!("counterfoil-{run}"), file })
}

/// Starts the services and waits for their health checks.
pub(crate) fn up(project: &Compose, services: &[&str], signals: &Signals) -> Result<()> {
    let mut up = command(project, &["up", "--detach", "--wait"]);
    shell::succeed(up.args(services), signals)
}

/// Stops the project and removes its volumes.
pub(crate) fn down(project: &Compose) {
    if let Err(error) = shell::output(&mut command(project, &["down", "--volumes"])) {
        eprintln!("{error:#}");
    }
}

/// The database of the project.
pub(crate) fn postgres(project: &Compose) -> Result<Postgres> {
    let config = config(project)?;
    let at = address(project, "postgres", 5432)?;
    let user = variable(&config, "postgres", "POSTGRES_USER").unwrap_or("postgres");
    let password = variable(&config, "postgres", "POSTGRES_PASSWORD")
        .context("service `postgres` of compose.yaml sets no POSTGRES_PASSWORD")?;
    let url = format!("postgres://{user}:{password}@{at}/postgres");
    Ok(Postgres { kind: Kind::Container, url, private: None })
}

/// The broker of the project.
pub(crate) fn rabbitmq(project: &Compose) -> Result<RabbitMq> {
    let config = config(project)?;
    let at = address(project, "rabbitmq", 5672)?;
    let user = variable(&config, "rabbitmq", "RABBITMQ_DEFAULT_USER").unwrap_or("guest");
    let password = variable(&config, "rabbitmq", "RABBITMQ_DEFAULT_PASS").unwrap_or("guest");
    Ok(RabbitMq {
        kind: Kind::Container,
        url: format!("amqp://{user}:{password}@{at}/%2f"),
        private: None,
    })
}

fn command(project: &Compose, args: &[&str]) -> Command {
    let mut docker = Command::new("docker");
    docker.args(["compose", "--project-name", &project.project, "--file"]);
    docker.arg(&project.file).args(args);
    docker
}

fn config(project: &Compose) -> Result<Value> {
    let text = shell::output(&mut command(project, &["config", "--format", "json"]))?;
    serde_json::from_str(&text).context("`docker compose config` printed no JSON")
}

/// Host and port under which a container's port is published.
fn address(project: &Compose, service: &str, port: u16) -> Result<String> {
    let text = shell::output(&mut command(project, &["port", service, &port.to_string()]))?;
    let published = text.lines().next().unwrap_or_default().trim();
    if published.is_empty() {
        bail!("service `{service}` of {} publishes no port {port}", project.file.display());
    }
    Ok(published.replace("0.0.0.0", "127.0.0.1"))
}

/// A variable of a service; compose prints every form of `environment` as a map.
fn variable<'a>(config: &'a Value, service: &str, name: &str) -> Option<&'a str> {
    config.get("services")?.get(service)?.get("environment")?.get(name)?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn credentials_come_from_the_compose_file() {
        let config = json!({ "services": { "postgres": { "environment": {
            "POSTGRES_PASSWORD": "secret" } } } });
        assert_eq!(variable(&config, "postgres", "POSTGRES_PASSWORD"), Some("secret"));
        assert_eq!(variable(&config, "postgres", "POSTGRES_USER"), None);
        assert_eq!(variable(&config, "rabbitmq", "RABBITMQ_DEFAULT_USER"), None);
    }
}
