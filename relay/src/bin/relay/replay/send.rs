use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use db::Db;
use outbox::admin::AdminError;
use outbox::replay::{NewReplay, ReplayInfo, ReplayJob, ReplayStore, plan};
use relay::replay::{ReplayOutcome, ReplaySettings, Replayer};
use transport::Publisher;
use transport::rabbitmq::RabbitMq;

use super::progress::Progress;
use super::{Resume, Start, show};
use crate::broker::broker;
use crate::config::Config;
use crate::database::{address, settings};
use crate::operator::{Output, connection};
use crate::output::{self, say};
use crate::run::Signals;

pub(super) fn start<C: ReplayStore>(config: &Config, options: &Start) -> Result<()> {
    let new = new(options)?;
    let order = options.why.order();
    // Before the log is walked over: what cannot be sent need not be counted.
    let rabbit = if order.dry_run { None } else { Some(RabbitMq::new(&broker(config)?)?) };
    let mut conn = connection::<C>(config)?;
    let plan = plan(&mut *conn, &new.selection)?;
    let Some(rabbit) = rabbit else { return show::plan(&plan, &new, options.output) };
    let sending = sending(config);
    let job = conn.start_replay(&new, &plan, &sending.owner, sending.lease, &order)?;
    drop(conn);
    if !options.output.json {
        say(format!("replay {} of {} messages to queue {}", job.id, job.total, job.queue))?;
        for line in show::remarks(&plan) {
            say(line)?;
        }
    }
    send::<C>(config, rabbit, sending, job, options.output)
}

fn new(options: &Start) -> Result<NewReplay> {
    if let Some(forced) = &options.force_side_effects
        && *forced != options.consumer
    {
        bail!(
            "--force-side-effects names {forced:?}, and the replay is for {:?}; give the same name, if its handlers shall reach the world again",
            options.consumer
        );
    }
    Ok(NewReplay {
        consumer: options.consumer.clone(),
        queue: options.queue.clone().unwrap_or_else(|| options.consumer.clone()),
        forced: options.force_side_effects.is_some(),
        selection: options.which.selection()?,
        rate: options.rate,
        allow_gap: options.allow_gap,
    })
}

pub(super) fn resume<C: ReplayStore>(config: &Config, options: &Resume) -> Result<()> {
    let rabbit = RabbitMq::new(&broker(config)?)?;
    let sending = sending(config);
    let mut conn = connection::<C>(config)?;
    let order = options.order();
    let job = conn.resume_replay(options.id, &sending.owner, sending.lease, &order)?;
    drop(conn);
    if !options.output.json {
        say(format!("replay {} goes on: {} of {} sent", job.id, job.sent, job.total))?;
    }
    send::<C>(config, rabbit, sending, job, options.output)
}

fn sending(config: &Config) -> ReplaySettings {
    let mut sending = ReplaySettings::default();
    let relay = crate::run::settings(config);
    sending.owner = format!("{} (process {})", crate::operator::me(), std::process::id());
    sending.lease = relay.lease;
    sending
}

fn send<C: ReplayStore>(
    config: &Config,
    rabbit: RabbitMq,
    sending: ReplaySettings,
    job: ReplayJob,
    output: Output,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let id = job.id;
    let (outcome, info) = runtime.block_on(async {
        let signals = Signals::listen()?;
        let pool = settings(config).with_pool_size(2);
        let db = Db::<C>::connect(address(config)?, pool).await?;
        let publisher: Arc<dyn Publisher> = Arc::new(rabbit);
        let replayer = Replayer::new(db.clone(), publisher.clone(), sending);
        let mut progress = Progress::of(&job, output)?;
        let outcome = replayer.run(job, |done| progress.moved(done), signals.first_then_exit());
        let outcome = outcome.await;
        publisher.close().await;
        progress.ended();
        let info = db.call(move |conn| conn.replay(id)).await;
        Ok::<_, anyhow::Error>((outcome, info))
    })?;
    // A call to a frozen database never ends, and dropping the runtime would wait for it.
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let (true, Ok(info)) = (output.json, &info) {
        output::json_line(&show::as_json(info, "ended"))?;
    }
    let again = format!("`relay replay resume {id} --reason …` goes on from there");
    match outcome {
        Err(error) => bail!("replay {id} cannot go on: {error}; {again}"),
        Ok(ReplayOutcome::Stopped) => bail!("replay {id} was interrupted; {again}"),
        Ok(ReplayOutcome::Cancelled) => bail!("replay {id} was cancelled by an operator"),
        Ok(ReplayOutcome::Lost) => {
            bail!("replay {id} is in other hands: it was resumed while this process was silent")
        }
        Ok(ReplayOutcome::Done) => done(&info.map_err(flat)?, output),
    }
}

fn flat(error: db::CallError<AdminError>) -> anyhow::Error {
    anyhow::anyhow!("it is sent, and its record cannot be read: {error}")
}

fn done(info: &ReplayInfo, output: Output) -> Result<()> {
    if !output.json {
        say(format!("replay {} is done: {} messages sent", info.id, info.sent))?;
        if info.unsendable > 0 {
            say(format!(
                "{} rows were passed over: no broker takes them, nor did it when they were new",
                info.unsendable
            ))?;
        }
    }
    match info.deleted_meanwhile() {
        0 => Ok(()),
        gone => bail!(
            "{gone} messages of replay {} were deleted from the log before they could be sent; raise the rate or the retention",
            info.id
        ),
    }
}
