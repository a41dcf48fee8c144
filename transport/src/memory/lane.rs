use std::sync::Arc;

use async_trait::async_trait;
use message::Message;

use super::broker::MemoryBroker;
use super::script::BatchFate;
use super::state::lost;
use crate::check::Way;
use crate::{Lane, Unavailable, Verdict};

pub(super) struct MemoryLane {
    broker: MemoryBroker,
    session: u64,
    way: Way,
    failed: bool,
}

impl MemoryLane {
    pub(super) const fn new(broker: MemoryBroker, session: u64, way: Way) -> Self {
        Self { broker, session, way, failed: false }
    }

    /// Checks and scripted verdicts, decided before the lock is taken: the script is the user's code
    /// and may ask the broker something.
    fn judge(&self, batch: &[Message]) -> Vec<Option<Verdict>> {
        let judge = self.broker.state().script.judge.clone();
        batch
            .iter()
            .map(|message| match self.way.check(message) {
                Err(invalid) => Some(Verdict::Poison(invalid.into())),
                Ok(()) => judge.as_ref().and_then(|judge| judge(message)),
            })
            .collect()
    }

    async fn send(&self, batch: &[Message]) -> Result<Vec<Verdict>, Unavailable> {
        // Nothing below waits in the usual case; without this a busy lane would starve its
        // neighbours on the same thread.
        tokio::task::coop::consume_budget().await;
        self.broker.pass_gate(self.session).await?;
        let verdicts = self.judge(batch);
        let messages: Vec<_> = batch.iter().map(|message| Arc::new(message.clone())).collect();
        let mut state = self.broker.state();
        state.check_session(self.session)?;
        let fate = state.script.next_batch();
        if fate == BatchFate::Fails {
            return Err(lost("scripted: nothing of this batch arrived"));
        }
        let mut scratch = Vec::new();
        let verdicts = messages
            .iter()
            .zip(verdicts)
            .map(|(message, verdict)| {
                verdict.unwrap_or_else(|| state.publish(message, &mut scratch))
            })
            .collect();
        match fate {
            BatchFate::LosesConfirms => Err(lost("scripted: the confirms of this batch were lost")),
            BatchFate::Normal | BatchFate::Fails => Ok(verdicts),
        }
    }
}

#[async_trait]
impl Lane for MemoryLane {
    async fn publish(&mut self, batch: &[Message]) -> Result<Vec<Verdict>, Unavailable> {
        if self.failed {
            return Err(lost("this lane failed before or was abandoned; open a new one"));
        }
        // Set while the batch is out, so that an abandoned call ends the lane as it does elsewhere.
        self.failed = true;
        let addressed = self.way.addressed(batch);
        let verdicts = self.send(addressed.as_deref().unwrap_or(batch)).await?;
        self.failed = false;
        Ok(verdicts)
    }
}
