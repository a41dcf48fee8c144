use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use db::Db;
use inbox::effect::{Answer, Question, Reconciled, Reconciler, Settings, State, admin};
use inbox::{Consumer, InboxConnection};
use outbox::admin::AdminStore;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::config::Config;
use crate::database::{address, settings};
use crate::operator::{Output, connection};
use crate::output::{self, say};

#[derive(Args, Debug)]
#[command(after_help = "\
The program is asked about one effect at a time; in its arguments {key}, {effect}, {scope} and {operation} stand for \
what they say. Its answer is its exit code:\n  \
0      done; what it prints is the result, as JSON (nothing stands for null)\n  \
3      not done, and not to be done by a request that is still under way\n  \
other  not known; it is asked again later, or a person decides\n\nIt fails where the program cannot be started, or prints something else.\n\n\
  relay effects reconcile --consumer billing --effect charge -- ./was-it-charged {key}")]
pub(crate) struct Options {
    /// Only this consumer's; else of all that have open effects.
    #[arg(long)]
    consumer: Option<String>,
    /// Which effects the program knows about.
    #[arg(long, requires = "program")]
    effect: Option<String>,
    /// A program that asks the provider, with its arguments.
    #[arg(last = true, requires = "effect")]
    program: Vec<String>,
    /// Longest wait for one answer of the program; without one the effect is asked about again later.
    #[arg(long, default_value = "10s", requires = "program", value_parser = humantime::parse_duration)]
    deadline: Duration,
    #[command(flatten)]
    output: Output,
}

impl Options {
    fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings.ask_deadline = self.deadline;
        settings
    }
}

/// Exit code of a program that knows that an effect was not done.
const NOT_DONE: i32 = 3;

pub(super) fn reconcile<C: AdminStore + InboxConnection>(
    config: &Config,
    options: &Options,
) -> Result<()> {
    let consumers: BTreeSet<String> = match &options.consumer {
        Some(consumer) => [consumer.clone()].into(),
        None => admin::counts(&mut *connection::<C>(config)?, None)?
            .into_iter()
            .filter(|group| matches!(group.state, State::Attempted | State::Unknown))
            .map(|group| group.consumer)
            .collect(),
    };
    let settings =
        settings(config).with_pool_size(2).with_application_name("counterfoil-relay operator");
    let db = Db::<C>::open(address(config)?, settings)?;
    migrations::check(&mut *db.get::<std::convert::Infallible>()?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let (mut lines, unusable) = (Vec::new(), Arc::new(Mutex::new(Vec::new())));
    for consumer in consumers {
        let done = runtime.block_on(all(&db, &consumer, options, &unusable))?;
        lines.push((consumer, done));
    }
    tell(options, &lines)?;
    let unusable = unusable.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(first) = unusable.first() {
        bail!(
            "{} of the answers could not be used, and these effects are still unknown: {first}",
            unusable.len()
        );
    }
    Ok(())
}

/// Why the program gave no answer, one for each question: its fault or this command's, and not the provider's.
type Unusable = Arc<Mutex<Vec<String>>>;

/// Rounds until one finds nothing more to do.
async fn all<C: InboxConnection>(
    db: &Db<C>,
    consumer: &str,
    options: &Options,
    unusable: &Unusable,
) -> Result<Reconciled> {
    let mut reconciler = Reconciler::new(db.clone(), Consumer(consumer), options.settings())?;
    if let Some(effect) = &options.effect {
        let (program, unusable) = (options.program.clone(), unusable.clone());
        let ask = move |question| {
            let (program, unusable) = (program.clone(), unusable.clone());
            async move {
                ask(program, question).await.map_err(|error| {
                    let mut unusable = unusable.lock().unwrap_or_else(PoisonError::into_inner);
                    unusable.push(format!("{error:#}"));
                    error.into()
                })
            }
        };
        reconciler = reconciler.ask(effect, ask);
    }
    let mut sum = Reconciled::default();
    loop {
        let done = reconciler.round().await?;
        if done == Reconciled::default() {
            return Ok(sum);
        }
        sum.lapsed += done.lapsed;
        sum.reviewed += done.reviewed;
        sum.done += done.done;
        sum.not_done += done.not_done;
        sum.still_unknown += done.still_unknown;
    }
}

async fn ask(program: Vec<String>, question: Question) -> Result<Answer<Value>> {
    let fill = |argument: &String| {
        // The key last: the others are data, and could spell its name.
        argument
            .replace("{effect}", &question.effect)
            .replace("{scope}", question.operation.scope())
            .replace("{operation}", question.operation.id())
            .replace("{key}", &question.key.to_string())
    };
    let mut words = program.iter().map(fill);
    let Some(name) = words.next() else { return Ok(Answer::StillUnknown) };
    let output = Command::new(&name)
        .args(words)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot start {name:?}"))?;
    match output.status.code() {
        Some(0) => {
            let text = String::from_utf8(output.stdout).context("what it printed is no UTF-8")?;
            let text = text.trim();
            let result = if text.is_empty() {
                Value::Null
            } else {
                serde_json::from_str(text).context("what it printed is no JSON")?
            };
            Ok(Answer::Done(result))
        }
        Some(NOT_DONE) => Ok(Answer::NotDone),
        _ => Ok(Answer::StillUnknown),
    }
}

fn tell(options: &Options, lines: &[(String, Reconciled)]) -> Result<()> {
    if options.output.json {
        let lines = lines.iter().map(|(consumer, done)| {
            json!({
                "consumer": consumer, "lapsed": done.lapsed, "reviewed": done.reviewed, "done": done.done,
                "not_done": done.not_done, "still_unknown": done.still_unknown,
            })
        });
        return output::json(&lines.collect());
    }
    if lines.is_empty() {
        return say("no effect is open");
    }
    let rows = lines.iter().map(|(consumer, done)| {
        let counts = [done.lapsed, done.reviewed, done.done, done.not_done, done.still_unknown];
        let counts = counts.into_iter().map(|count| count.to_string());
        std::iter::once(consumer.clone()).chain(counts).collect()
    });
    let headers = ["consumer", "found", "for a person", "done", "not done", "still unknown"];
    output::table(&headers, rows.collect(), "")
}
