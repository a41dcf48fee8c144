//! How many messages lie ready in a queue, as the broker says.
//!
//! It asks the leader of a quorum queue and waits for 250 ms. If it gets no answer in that time, or no leader is
//! there, it says that the queue has neither messages nor consumers (`rabbit_quorum_queue:stat`).

use std::time::{Duration, Instant};

use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::{FieldTable, ShortString};

const GIVEN_UP: Duration = Duration::from_millis(250);

/// On a network that takes so long by itself the answer is to be believed at last.
const ASKED: usize = 3;

/// Before a leader that there was none of is asked for again.
const PAUSE: Duration = Duration::from_millis(20);

/// Counts them for a consumer of the queue: where there is none, nobody was asked. Ends with the caller's
/// deadline if that goes on.
pub(super) async fn ready_beside_consumers(
    channel: &Channel,
    queue: &ShortString,
) -> lapin::Result<u64> {
    loop {
        if let Some(ready) = look(channel, queue).await? {
            return Ok(ready);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Counts them for anybody. "Nothing and no consumers" is asked for again where it took as long as the broker
/// waits for a leader; that no leader is there cannot be told from an empty queue.
pub(super) async fn ready(channel: &Channel, queue: &ShortString) -> lapin::Result<u64> {
    for _ in 0..ASKED {
        let begun = Instant::now();
        if let Some(ready) = look(channel, queue).await? {
            return Ok(ready);
        }
        if begun.elapsed() < GIVEN_UP {
            break;
        }
    }
    Ok(0)
}

/// `None` where the broker says that there are neither messages nor consumers.
async fn look(channel: &Channel, queue: &ShortString) -> lapin::Result<Option<u64>> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let told = channel.queue_declare(queue.clone(), options, FieldTable::default()).await?;
    let known = told.message_count() > 0 || told.consumer_count() > 0;
    Ok(known.then(|| told.message_count().into()))
}
