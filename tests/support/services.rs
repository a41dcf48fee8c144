//! Where PostgreSQL and RabbitMQ are.

/// The administrative database: `DATABASE_URL`.
#[must_use]
pub fn database_url() -> String {
    named("DATABASE_URL")
}

/// The broker: `AMQP_URL`.
#[must_use]
pub fn amqp_url() -> String {
    named("AMQP_URL")
}

fn named(variable: &str) -> String {
    match std::env::var(variable) {
        Ok(url) if !url.is_empty() => url,
        _ => panic!(
            "{variable} is not set: run `cargo xtask test`, which starts what the tests need"
        ),
    }
}
