use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use db::{CallError, Class, Db, classify};
use diesel::result::{Error, QueryResult};
use outbox::reader::{Entry, ReadLimit};
use outbox::replay::{Fenced, ReplayEnd, ReplayJob, ReplayPiece, ReplayStore};
use tokio::time::{Instant, sleep};
use transport::{Lane, Publisher, Refusal, Unavailable};

use super::batch::{Settled, marked, settled};
use super::pace::Pace;
use super::{ReplayError, ReplaySettings};
use crate::shutdown::Shutdown;

/// Sends replays.
pub struct Replayer<C: ReplayStore> {
    db: Db<C>,
    publisher: Arc<dyn Publisher>,
    settings: ReplaySettings,
}

/// How far a replay has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayProgress {
    /// Messages confirmed.
    pub sent: u64,
    /// Messages that no broker takes.
    pub unsendable: u64,
    /// Messages counted at the start.
    pub total: u64,
    /// Everything selected up to here is settled.
    pub position: i64,
}

/// How the work on a replay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// Everything selected is settled.
    Done,
    /// Asked to stop; it can be resumed.
    Stopped,
    /// An operator cancelled it.
    Cancelled,
    /// Somebody else resumed it after this process had fallen silent.
    Lost,
}

/// Why the work ends before everything is settled.
enum Stop {
    Asked,
    Cancelled,
    Lost,
    Failed(ReplayError),
}

impl From<ReplayError> for Stop {
    fn from(error: ReplayError) -> Self {
        Self::Failed(error)
    }
}

impl<C: ReplayStore> Replayer<C> {
    /// Sends from `db` to `publisher`.
    #[must_use]
    pub fn new(db: Db<C>, publisher: Arc<dyn Publisher>, settings: ReplaySettings) -> Self {
        Self { db, publisher, settings }
    }

    /// Works on a replay that was started or resumed with [`ReplaySettings::owner`] and
    /// [`ReplaySettings::lease`], until it ends or `shutdown` completes. Then what is in flight is
    /// settled, and the replay given up. `observe` is told after each batch.
    ///
    /// # Errors
    /// [`ReplayError`]; the replay is recorded as failed, unless the database cannot be written.
    pub async fn run(
        &self,
        job: ReplayJob,
        observe: impl FnMut(ReplayProgress),
        shutdown: impl Future<Output = ()>,
    ) -> Result<ReplayOutcome, ReplayError> {
        let mut work = Work {
            replayer: self,
            shutdown: Shutdown::on(shutdown),
            observe,
            pace: Pace::new(job.rate),
            renewed: Instant::now(),
            lane: None,
            job,
        };
        let (end, outcome) = match work.through().await {
            Ok(()) => (ReplayEnd::Done, Ok(ReplayOutcome::Done)),
            Err(Stop::Asked) => (ReplayEnd::Stopped, Ok(ReplayOutcome::Stopped)),
            Err(Stop::Failed(error)) => (ReplayEnd::Failed(error.to_string()), Err(error)),
            Err(Stop::Cancelled) => return Ok(ReplayOutcome::Cancelled),
            Err(Stop::Lost) => return Ok(ReplayOutcome::Lost),
        };
        let job = work.job.clone();
        let ended = self.call(move |conn| conn.end_replay(&job, &end)).await;
        match (ended, outcome) {
            (Ok(Fenced::Cancelled), Ok(_)) => Ok(ReplayOutcome::Cancelled),
            (Ok(Fenced::Lost), Ok(_)) => Ok(ReplayOutcome::Lost),
            (Err(error), Ok(_)) => Err(ReplayError::Database(error)),
            // The first trouble is the one to tell.
            (Ok(_) | Err(_), outcome) => outcome,
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut C) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, CallError<Error>> {
        self.db.call_within(self.settings.lease, work).await
    }
}

struct Work<'a, C: ReplayStore, F, O> {
    replayer: &'a Replayer<C>,
    shutdown: Shutdown<F>,
    observe: O,
    pace: Pace,
    /// When the lease was renewed last, or a little earlier.
    renewed: Instant,
    lane: Option<Box<dyn Lane>>,
    job: ReplayJob,
}

impl<C, F, O> Work<'_, C, F, O>
where
    C: ReplayStore,
    F: Future<Output = ()>,
    O: FnMut(ReplayProgress),
{
    async fn through(&mut self) -> Result<(), Stop> {
        let settings = &self.replayer.settings;
        let rows = settings.rows(self.job.rate, self.replayer.publisher.window());
        let limit = ReadLimit { rows, bytes: settings.batch_bytes };
        loop {
            let piece = self.read(limit).await?;
            self.send(&piece.entries).await?;
            self.job.position = self.job.position.max(piece.next);
            // Where nothing in it was wanted it is worth a write only when the lease is.
            let sent = !piece.entries.is_empty();
            if sent || piece.exhausted || self.renewed.elapsed() > self.job.ttl / 3 {
                self.advance().await?;
            }
            if piece.exhausted {
                return Ok(());
            }
        }
    }

    async fn read(&mut self, limit: ReadLimit) -> Result<ReplayPiece, Stop> {
        self.patiently(move |conn, job| conn.read_history(job, job.position, limit)).await
    }

    /// Sends a batch until all of it is settled.
    async fn send(&mut self, mut entries: &[Entry]) -> Result<(), Stop> {
        let mut trouble = Trouble::default();
        while !entries.is_empty() {
            let pause = self.pace.wait().max(trouble.pause(&self.replayer.settings));
            if self.shutdown.within(pause).await {
                return Err(Stop::Asked);
            }
            // A process that was frozen must not send for a replay that is somebody else's by now.
            if self.renewed.elapsed() > self.job.ttl / 2 {
                self.advance().await?;
            }
            self.pace.sending(u32::try_from(entries.len()).unwrap_or(u32::MAX));
            match self.publish(entries).await? {
                Ok(Settled { count, sent, unsendable, refusal }) => {
                    self.job.sent += sent;
                    self.job.unsendable += unsendable;
                    if count > 0 {
                        trouble = Trouble::default();
                        self.job.position = entries[count - 1].seq;
                        // The whole batch is written with the position behind it.
                        if refusal.is_some() {
                            self.advance().await?;
                        }
                    }
                    entries = &entries[count..];
                    self.judge(refusal, &mut trouble)?;
                }
                Err(unavailable) => {
                    self.lane = None;
                    if unavailable.needs_operator()
                        || trouble.lasts_longer_than(self.replayer.settings.patience)
                    {
                        return Err(ReplayError::Broker(unavailable).into());
                    }
                    tracing::warn!(replay = self.job.id, %unavailable, "trying again");
                }
            }
        }
        Ok(())
    }

    fn judge(&self, refusal: Option<Refusal>, trouble: &mut Trouble) -> Result<(), Stop> {
        let queue = self.job.queue.clone();
        let patience = self.replayer.settings.patience;
        Err(Stop::Failed(match refusal {
            None => return Ok(()),
            Some(Refusal::Nacked) if !trouble.lasts_longer_than(patience) => {
                tracing::warn!(replay = self.job.id, queue, "the queue takes no more at present");
                return Ok(());
            }
            Some(Refusal::Nacked) => ReplayError::QueueFull { queue, after: patience },
            Some(Refusal::Unroutable { .. }) => ReplayError::QueueMissing { queue },
            Some(
                refusal @ (Refusal::ExchangeMissing { .. }
                | Refusal::AccessRefused { .. }
                | Refusal::Other { .. }),
            ) => ReplayError::Refused { queue, refusal },
        }))
    }

    /// Publishes a batch, and keeps the lease meanwhile: a broker under an alarm can take minutes.
    async fn publish(&mut self, entries: &[Entry]) -> Result<Result<Settled, Unavailable>, Stop> {
        let sendable = entries.iter().filter(|entry| entry.defect.is_none());
        let batch: Vec<_> = sendable.map(|entry| marked(&self.job, &entry.message)).collect();
        let (publisher, queue) = (self.replayer.publisher.clone(), self.job.queue.clone());
        // Taken: a lane that failed, or that is dropped half-way here, is of no more use.
        let taken = self.lane.take();
        let publishing = async move {
            let mut lane = match taken {
                Some(lane) => lane,
                None => publisher.open_lane_to(&queue).await?,
            };
            let verdicts = lane.publish(&batch).await?;
            Ok((lane, verdicts))
        };
        tokio::pin!(publishing);
        let published: Result<_, Unavailable> = loop {
            tokio::select! {
                published = &mut publishing => break published,
                () = sleep(self.job.ttl / 3) => self.advance().await?,
            }
        };
        Ok(published.map(|(lane, verdicts)| {
            self.lane = Some(lane);
            settled(&self.job, entries, verdicts)
        }))
    }

    /// Writes how far it has come, which renews the lease.
    async fn advance(&mut self) -> Result<(), Stop> {
        let asked = Instant::now();
        let (position, sent, unsendable) = (self.job.position, self.job.sent, self.job.unsendable);
        let fenced = self
            .patiently(move |conn, job| conn.advance_replay(job, position, sent, unsendable))
            .await?;
        match fenced {
            Fenced::Done => {}
            Fenced::Cancelled => return Err(Stop::Cancelled),
            Fenced::Lost => return Err(Stop::Lost),
        }
        self.renewed = asked;
        (self.observe)(ReplayProgress { sent, unsendable, total: self.job.total, position });
        Ok(())
    }

    /// Asks the database until it answers. What is asked can be asked again: reading, and writing of
    /// totals under the epoch.
    async fn patiently<T: Send + 'static>(
        &mut self,
        work: impl Fn(&mut C, &ReplayJob) -> QueryResult<T> + Clone + Send + 'static,
    ) -> Result<T, Stop> {
        let mut trouble = Trouble::default();
        loop {
            let (work, job) = (work.clone(), self.job.clone());
            let error = match self.replayer.call(move |conn| work(conn, &job)).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if final_word(&error) || trouble.lasts_longer_than(self.replayer.settings.patience) {
                return Err(ReplayError::Database(error).into());
            }
            tracing::warn!(replay = self.job.id, %error, "trying again");
            if self.shutdown.within(trouble.pause(&self.replayer.settings)).await {
                return Err(Stop::Asked);
            }
        }
    }
}

/// Whether asking the database again cannot help.
fn final_word(error: &CallError<Error>) -> bool {
    match error {
        CallError::Work(error) | CallError::Begin(error) | CallError::Commit(error) => {
            !matches!(classify(error), Class::Contention | Class::Unavailable)
        }
        CallError::PoolExhausted { .. } | CallError::TimedOut { .. } => false,
        CallError::Panicked { .. } | CallError::Cancelled => true,
    }
}

/// Failures in a row.
#[derive(Default)]
struct Trouble {
    since: Option<Instant>,
    failures: u32,
}

impl Trouble {
    /// Counts one more.
    fn lasts_longer_than(&mut self, patience: Duration) -> bool {
        self.failures += 1;
        self.since.get_or_insert_with(Instant::now).elapsed() > patience
    }

    fn pause(&self, settings: &ReplaySettings) -> Duration {
        match self.failures {
            0 => Duration::ZERO,
            failures => settings.backoff.jittered(failures),
        }
    }
}
