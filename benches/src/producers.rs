use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow};
use diesel::{Connection, PgConnection};
use message::{Headers, Message, MessageId, name};
use outbox::Draft;

use crate::PAYLOAD_BYTES;

/// Services that each commit one message per transaction, together on an open schedule: a commit
/// that takes long delays only the next one of its own connection.
pub struct Producers {
    /// Connections, each with a thread of its own.
    pub count: usize,
    /// Commits per second of all together.
    pub per_s: f64,
}

/// What the producers did.
pub struct Committed {
    /// When COMMIT returned, by message.
    pub at: HashMap<MessageId, Instant>,
    /// Commits per second that were reached.
    pub per_s: f64,
}

impl Producers {
    /// Commits the messages through [`Draft::enqueue`], and calls `committed` in the thread that has
    /// just committed one.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn commit(
        &self,
        database_url: &str,
        messages: &Arc<[Message]>,
        committed: impl Fn(&Message, Instant) + Clone + Send + 'static,
    ) -> Result<Committed> {
        let mut threads = Vec::new();
        let mut connections = Vec::new();
        for _ in 0..self.count {
            connections.push(PgConnection::establish(database_url)?);
        }
        let start = Instant::now();
        for (first, mut conn) in connections.into_iter().enumerate() {
            let (messages, committed) = (messages.clone(), committed.clone());
            let (step, per_s) = (self.count, self.per_s);
            threads.push(thread::spawn(move || {
                let mut done = Vec::new();
                for index in (first..messages.len()).step_by(step) {
                    let due = start + Duration::from_secs_f64(index as f64 / per_s);
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    let message = &messages[index];
                    let draft = Draft::of_message(message.clone());
                    conn.transaction(|tx| draft.enqueue(tx))?;
                    let at = Instant::now();
                    committed(message, at);
                    done.push((message.id, at));
                }
                anyhow::Ok(done)
            }));
        }
        let mut at = HashMap::new();
        for thread in threads {
            at.extend(thread.join().map_err(|_| anyhow!("a producer panicked"))??);
        }
        let last = at.values().max().context("no message")?;
        let per_s = at.len() as f64 / last.duration_since(start).as_secs_f64();
        Ok(Committed { at, per_s })
    }
}

/// Messages as events are, with 1,000 ordering keys.
#[must_use]
pub fn messages(count: usize, exchange: &str) -> Arc<[Message]> {
    (1..=count)
        .map(|n| {
            let mut headers = Headers::new();
            headers.insert(name::FINGERPRINT, "a".repeat(64));
            headers.insert(name::SCHEMA_VERSION, "1");
            Message {
                id: MessageId::new(),
                kind: "bench.message".to_owned(),
                operation: format!("operation-{n}"),
                ordering_key: Some(format!("key-{}", n % 1000)),
                exchange: exchange.to_owned(),
                routing_key: "bench.message".to_owned(),
                headers,
                content_type: Message::JSON.to_owned(),
                payload: vec![b'x'; PAYLOAD_BYTES].into(),
                created_at: SystemTime::now(),
            }
        })
        .collect()
}
