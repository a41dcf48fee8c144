use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use db::CallError;
use diesel::result::Error;
use tokio::select;
use tokio::time::sleep;

use crate::Consumer;
use crate::backend::InboxBackend;
use crate::builder::InboxConnection;
use crate::ending::Ending;
use crate::engine::{Engine, Patience};
use crate::store::micros;
use crate::store::retry::Start;
use crate::unit::Task;

/// How long a parked message is somebody's without a sign of life. Renewed while it is worked on.
pub(crate) const LEASE: Duration = Duration::from_secs(60);

impl<C: InboxConnection> Engine<C> {
    /// How often the message was begun since it last came to an end; the ending where it need not begin.
    /// A first delivery is not looked up.
    pub(crate) async fn starts(
        self: &Arc<Self>,
        task: &Arc<Task<C>>,
        patience: &mut Patience,
    ) -> Result<u32, Ending> {
        if let Some(lease) = &task.lease {
            return Ok(lease.starts);
        }
        let Some(digest) = task.digest else { return Ok(0) };
        // Looked up once: whoever has to decode it early asks before the others.
        loop {
            match task.looked.get() {
                Some(Start::Begun { starts }) => return Ok(*starts),
                Some(Start::Parked { reason, .. }) => return Err(Ending::Parked(*reason)),
                None => {}
            }
            let engine = self.clone();
            let looked = self.db.call_within(self.settings.handler_deadline, move |conn| {
                let consumer = Consumer(&engine.consumer);
                conn.write(|tx| C::Backend::look(tx, consumer, digest.as_bytes()))
            });
            let looked: Result<Start, CallError<Error>> = looked.await;
            match looked {
                Ok(start) => {
                    task.looked.get_or_init(|| start);
                }
                Err(error) => {
                    let reason = format!("cannot count a redelivery: {error}");
                    if let Some(ending) = self.wait(task, patience, &reason).await {
                        return Err(ending);
                    }
                }
            }
        }
    }

    /// Puts the start on record before anything runs: a message that kills its process leaves nothing else
    /// behind. Not before it has its place: what only waited beside the culprit has not been begun. False where
    /// a parked one is somebody else's by now.
    pub(crate) async fn begin(self: &Arc<Self>, task: &Arc<Task<C>>) -> Result<bool, String> {
        if !task.unbegun() {
            return Ok(true);
        }
        let (engine, begun) = (self.clone(), task.clone());
        let done = self.db.call_within(self.settings.handler_deadline, move |conn| {
            conn.write(|tx| {
                if let Some(digest) = &begun.digest {
                    C::Backend::start(tx, Consumer(&engine.consumer), digest.as_bytes())?;
                }
                match &begun.lease {
                    Some(lease) => C::Backend::begin(tx, lease, micros(LEASE)),
                    None => Ok(true),
                }
            })
        });
        let ours = done.await.map_err(|error: CallError<Error>| error.to_string())?;
        if ours {
            task.set_begun();
        }
        Ok(ours)
    }

    /// Work on a message; a parked one's lease is made to last as long.
    pub(crate) async fn under_lease<T>(
        self: &Arc<Self>,
        task: &Arc<Task<C>>,
        work: impl Future<Output = T>,
    ) -> T {
        let Some(lease) = task.lease else { return work.await };
        let mut work = std::pin::pin!(work);
        loop {
            select! {
                biased;
                done = &mut work => return done,
                () = sleep(LEASE / 3) => {}
            }
            let renewed = self.db.call_within(LEASE / 3, move |conn| {
                conn.write(|tx| C::Backend::renew(tx, &lease, micros(LEASE)))
            });
            let renewed: Result<bool, CallError<Error>> = select! {
                biased;
                done = &mut work => return done,
                renewed = renewed => renewed,
            };
            // Lost or not, the work goes on: its transaction finds out, and commits nothing then.
            if let Err(error) = renewed {
                tracing::debug!(consumer = self.consumer, reason = %error, "a lease was not renewed");
            }
        }
    }

    /// What was begun and given back has not crashed. Where the database cannot be told it counts as if.
    pub(crate) async fn unstart(self: &Arc<Self>, task: &Arc<Task<C>>) {
        if task.lease.is_none() && task.digest.is_none() {
            return;
        }
        let (engine, given) = (self.clone(), task.clone());
        let pause = micros(self.settings.reconnect_backoff().pause(PUT_OFF));
        let told: Result<(), CallError<Error>> = self
            .db
            .call_within(self.settings.handler_deadline, move |conn| {
                conn.write(|tx| {
                    if let Some(lease) = &given.lease {
                        C::Backend::untake(tx, lease, given.begun(), pause)?;
                    }
                    if let (Some(digest), true) = (&given.digest, given.begun()) {
                        C::Backend::finish(tx, Consumer(&engine.consumer), digest.as_bytes())?;
                    }
                    Ok(())
                })
            })
            .await;
        if let Err(error) = told {
            tracing::debug!(consumer = self.consumer, reason = %error, "a start could not be taken back");
        }
    }
}

/// How many failures long a parked message is put off that could not be answered: nobody waits for it.
const PUT_OFF: u32 = 5;
