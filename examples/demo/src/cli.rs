use clap::{Args, Parser, Subcommand};

/// A shop whose payments are told more than once, over an outbox, a relay and a broker, to two
/// consumers: a naive one and one with an inbox. Provokes every fault and checks the books in the end.
#[derive(Debug, Parser)]
#[command(name = "demo", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) step: Option<Step>,
    #[command(flatten)]
    pub(crate) story: Story,
}

/// The whole story in one process.
#[derive(Debug, Args)]
pub(crate) struct Story {
    /// How many orders to take
    #[arg(long, default_value_t = 10_000, value_parser = parse_orders)]
    pub(crate) orders: usize,
    /// Decides amounts, merchants and which payments are told again; the same for the same seed
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Show no progress, only the result
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Use this PostgreSQL database (in a schema of its own, removed in the end) instead of SQLite
    #[arg(long, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// Use this RabbitMQ broker instead of the one in this process
    #[arg(long, value_name = "URL")]
    pub(crate) amqp_url: Option<String>,
    /// Let amqp:// (plain text) leave this machine
    #[arg(long)]
    pub(crate) allow_plaintext_broker: bool,
}

/// The same in separate processes, with the `relay` program between them. Needs the feature `services`.
#[derive(Debug, Subcommand)]
pub(crate) enum Step {
    /// Make the tables, the exchange and the queues
    Setup {
        #[command(flatten)]
        at: Place,
    },
    /// Take orders and payments, and tell of some more than once
    Produce {
        #[command(flatten)]
        at: Place,
        /// How many orders to take
        #[arg(long, env = "DEMO_ORDERS", default_value_t = 10_000, value_parser = parse_orders)]
        orders: usize,
        /// Decides amounts, merchants and which payments are told again
        #[arg(long, env = "DEMO_SEED", default_value_t = 1)]
        seed: u64,
    },
    /// Credit payments through an inbox until stopped
    Consume {
        #[command(flatten)]
        at: Place,
        #[command(flatten)]
        faults: Faults,
    },
    /// Credit payments without an inbox until stopped
    Naive {
        #[command(flatten)]
        at: Place,
        #[command(flatten)]
        faults: Faults,
    },
    /// Wait until everything has arrived, print the books and check them
    Check {
        #[command(flatten)]
        at: Place,
    },
}

/// Where everything is.
#[derive(Clone, Debug, Args)]
pub(crate) struct Place {
    /// PostgreSQL database
    #[arg(long, env = "DEMO_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) database_url: String,
    /// RabbitMQ broker
    #[arg(long, env = "DEMO_AMQP_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) amqp_url: String,
    /// Let amqp:// (plain text) leave this machine
    #[arg(long, env = "DEMO_ALLOW_PLAINTEXT_BROKER", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub(crate) allow_plaintext_broker: bool,
    /// Name of the exchange, and first part of the queues' names
    #[arg(long, env = "DEMO_NAME", default_value = "shop")]
    pub(crate) name: String,
}

/// What a consumer does wrong on purpose.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Faults {
    /// Abort the process between commit and ack of each such delivery; 0 for never
    #[arg(long, env = "DEMO_CRASH_EVERY", default_value_t = 0)]
    pub(crate) crash_every: u64,
    /// Have the broker deliver each such message again although it was dealt with; 0 for never
    #[arg(long, env = "DEMO_REDELIVER_EVERY", default_value_t = 0)]
    pub(crate) redeliver_every: u64,
}

/// Fewer orders leave no room for every fault.
const FEWEST: usize = 200;

fn parse_orders(text: &str) -> Result<usize, String> {
    let orders: usize = text.parse().map_err(|error| format!("{error}"))?;
    match orders {
        FEWEST..=1_000_000 => Ok(orders),
        _ => Err(format!("give {FEWEST} to 1000000")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn services_given_by_the_environment_do_not_change_the_embedded_story() {
        let cli = Cli::try_parse_from(["demo", "--orders", "200"]).expect("valid");
        assert_eq!((cli.story.database_url, cli.story.amqp_url), (None, None));
        assert!(Cli::try_parse_from(["demo", "--orders", "3"]).is_err());
    }
}
