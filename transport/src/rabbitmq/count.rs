//! How many messages lie ready in a queue.

use std::time::{Duration, Instant};

use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::{FieldTable, ShortString};

/// So long the broker waits for the leader of a quorum queue. Then it answers that nothing is there
/// (`rabbit_quorum_queue:stat/1`).
const GIVEN_UP: Duration = Duration::from_millis(250);

/// On a network that takes so long by itself the answer is to be believed at last.
const ASKED: u32 = 3;

/// Counts them. A zero that took as long as the broker's patience is no answer, and is asked for again.
pub(super) async fn ready(channel: &Channel, queue: ShortString) -> lapin::Result<u64> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let mut asked = 0;
    loop {
        let begun = Instant::now();
        let answer = channel.queue_declare(queue.clone(), options, FieldTable::default()).await?;
        asked += 1;
        let count = u64::from(answer.message_count());
        if count > 0 || begun.elapsed() < GIVEN_UP || asked == ASKED {
            return Ok(count);
        }
    }
}
