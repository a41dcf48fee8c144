use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use inbox::InboxConnection;
use inbox::effect::State;
use inbox::effect::admin::{Decision, Order};
use outbox::admin::AdminStore;
use serde_json::json;

use crate::config::Config;
use crate::operator::{Output, Why, connection};
use crate::output::{self, say};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Its number.
    id: i64,
    /// What became of it.
    #[arg(value_enum)]
    outcome: Outcome,
    /// What the provider answered, as JSON that the consumer can read as its result; `null` for one that reads none.
    /// With done, and only there.
    #[arg(long)]
    result: Option<String>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Outcome {
    /// It was performed.
    Done,
    /// It was certainly not performed, and no request is under way: it is called again.
    NotDone,
    /// It was not performed, and never shall be.
    Failed,
}

impl Options {
    fn decision(&self) -> Result<Decision> {
        let decision = match self.outcome {
            Outcome::Done if self.result.is_none() => bail!(
                "done needs what the provider answered, which the consumer reads as its result: --result JSON, or \
                 --result null where it reads none"
            ),
            Outcome::Done => return Ok(Decision::Done(self.result.clone())),
            Outcome::NotDone => Decision::NotDone,
            Outcome::Failed => Decision::Failed,
        };
        if self.result.is_some() {
            bail!("--result is what a done effect has brought; leave it out, or say done");
        }
        Ok(decision)
    }

    fn order(&self) -> Order {
        let outbox::admin::Order { actor, reason, dry_run } = self.why.order();
        let mut order = Order::new(actor, reason);
        order.dry_run = dry_run;
        order
    }
}

pub(super) fn decide<C: AdminStore + InboxConnection>(
    config: &Config,
    options: &Options,
) -> Result<()> {
    let (decision, order) = (options.decision()?, options.order());
    let mut conn = connection::<C>(config)?;
    let was = inbox::effect::admin::decide(&mut *conn, options.id, &decision, &order)?;
    let now = match options.outcome {
        Outcome::Done => "done",
        Outcome::NotDone => "not done, to be called again",
        Outcome::Failed => "failed",
    };
    if options.output.json {
        return output::json(
            &json!({ "id": options.id, "was": was.as_str(), "now": now, "dry_run": order.dry_run }),
        );
    }
    let is = if order.dry_run { "would be" } else { "is" };
    say(format!("effect {} was {was} and {is} {now}", options.id))?;
    if was == State::Failed && !matches!(options.outcome, Outcome::Failed) {
        // It was rejected over the refusal, and waits for no effect.
        return say("If it was refused to a message, that one is parked for review: \
            relay parked list --parked-for rejected, relay parked retry. If to an HTTP request whose reply was kept, \
            its client gets that until the key expires");
    }
    if was == State::Unknown {
        // Its message may have used up its attempts, or be of another operation that has given up.
        return say(
            "A message that waits for it goes on by itself; one that has given up is parked for review: \
            relay parked list --parked-for exhausted, relay parked retry. An HTTP request finds it when it is repeated",
        );
    }
    Ok(())
}
