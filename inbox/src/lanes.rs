use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use tokio::select;
use tokio::sync::{Mutex, mpsc};
use tokio_util::task::TaskTracker;

use crate::builder::InboxConnection;
use crate::engine::{Engine, Patience};
use crate::unit::{Task, Unit};

type Queue<C> = Arc<Mutex<mpsc::UnboundedReceiver<Unit<C>>>>;

/// Where messages wait for a worker: one line for all of them, or, in order, one for each worker, where
/// all messages of an ordering key go to the same one. Bounded by the prefetch and by the room of the
/// parking lot.
pub(crate) struct Lanes<C> {
    lines: Vec<mpsc::UnboundedSender<Unit<C>>>,
    hasher: RandomState,
}

impl<C: InboxConnection> Lanes<C> {
    /// Starts the workers; they end when the engine is told to stop, each after what it works on.
    pub(crate) fn open(engine: &Arc<Engine<C>>, workers: &TaskTracker) -> Arc<Self> {
        let count = engine.settings.concurrency;
        let (mut lines, mut queues) = (Vec::new(), Vec::<Queue<C>>::new());
        for _ in 0..if engine.settings.ordered { count } else { 1 } {
            let (line, queue) = mpsc::unbounded_channel();
            lines.push(line);
            queues.push(Arc::new(Mutex::new(queue)));
        }
        for worker in 0..count {
            workers.spawn(work(engine.clone(), queues[worker % queues.len()].clone()));
        }
        Arc::new(Self { lines, hasher: RandomState::new() })
    }

    /// Puts a message in line.
    pub(crate) async fn hand_on(&self, engine: &Arc<Engine<C>>, unit: Unit<C>) {
        let line = if self.lines.len() > 1 { self.line(engine, &unit.task).await } else { 0 };
        // Refused only after the workers have ended: it goes back unanswered.
        let _ = self.lines[line].send(unit);
    }

    async fn line(&self, engine: &Arc<Engine<C>>, task: &Arc<Task<C>>) -> usize {
        let mut hasher = self.hasher.build_hasher();
        if task.key().is_none() && !may_be_decoded(engine, task).await {
            return 0;
        }
        let from_event = || engine.decoded(task).as_ref().ok()?.ordering_key.as_deref();
        match task.key().or_else(from_event) {
            Some(key) => hasher.write(key.as_bytes()),
            // In no order: anywhere.
            None => hasher.write_u64(fastrand::u64(..)),
        }
        usize::try_from(hasher.finish() % self.lines.len() as u64).unwrap_or(0)
    }
}

/// Decoding is the user's code, and can be what kills the process: the start of a redelivered message goes
/// on record before it, and one that has been begun too often is not decoded any more.
async fn may_be_decoded<C: InboxConnection>(engine: &Arc<Engine<C>>, task: &Arc<Task<C>>) -> bool {
    let starts = engine.starts(task, &mut Patience::default()).await;
    let Ok(starts) = starts else { return false };
    starts < engine.settings.crash_limit && matches!(engine.begin(task).await, Ok(true))
}

/// What waits, up to so many, and at least one: nothing waits for company. None once nothing can come any
/// more.
async fn next<C>(queue: &Queue<C>, most: usize) -> Vec<Unit<C>> {
    let mut queue = queue.lock().await;
    let mut units: Vec<_> = queue.recv().await.into_iter().collect();
    while !units.is_empty() && units.len() < most {
        let Ok(unit) = queue.try_recv() else { break };
        units.push(unit);
    }
    units
}

async fn work<C: InboxConnection>(engine: Arc<Engine<C>>, queue: Queue<C>) {
    loop {
        let units = select! {
            biased;
            () = engine.stop.cancelled() => break,
            units = next(&queue, engine.settings.batch) => units,
        };
        if units.is_empty() {
            break;
        }
        engine.settle_all(units).await;
    }
}
