use std::sync::Arc;

use db::CallError;

use crate::Consumer;
use crate::backend::InboxBackend;
use crate::builder::InboxConnection;
use crate::ending::Ending;
use crate::engine::{Engine, Patience};
use crate::store::retry::Start;
use crate::unit::Task;

impl<C: InboxConnection> Engine<C> {
    /// How often the message was begun since it last came to an end; the ending where it need not begin.
    /// A first delivery is not looked up.
    pub(crate) async fn start(
        self: &Arc<Self>,
        task: &Arc<Task<C>>,
        patience: &mut Patience,
    ) -> Result<u32, Ending> {
        if let Some(lease) = &task.lease {
            return Ok(lease.starts);
        }
        let Some(digest) = task.digest else { return Ok(0) };
        loop {
            let engine = self.clone();
            let started = self.db.call(move |conn| {
                let consumer = Consumer(&engine.consumer);
                conn.write(|tx| C::Backend::start(tx, consumer, digest.as_bytes()))
            });
            let error: CallError<diesel::result::Error> = match started.await {
                Ok(Start::Begun { starts }) => return Ok(starts),
                Ok(Start::Parked { reason, .. }) => return Err(Ending::Parked(reason)),
                Err(error) => error,
            };
            let reason = format!("cannot count a redelivery: {error}");
            if let Some(ending) = self.wait(patience, &reason).await {
                return Err(ending);
            }
        }
    }

    /// What was begun and given back has not crashed. Where the database cannot be told it counts as if.
    pub(crate) async fn unstart(self: &Arc<Self>, task: &Arc<Task<C>>) {
        if task.lease.is_none() && task.digest.is_none() {
            return;
        }
        let (engine, task) = (self.clone(), task.clone());
        let told: Result<(), CallError<diesel::result::Error>> = self
            .db
            .call(move |conn| {
                conn.write(|tx| {
                    if let Some(lease) = &task.lease {
                        C::Backend::untake(tx, lease)?;
                    }
                    if let Some(digest) = &task.digest {
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
