use std::time::Duration;

use crate::backoff::Backoff;
use crate::retention::Retention;
use crate::{BuildError, effect};

/// How an inbox works through its queue.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Deliveries applied at once, each in its own transaction on its own connection. Default 4. Raise
    /// it while the database has room; the pool must hold at least as many connections. With more than
    /// one, messages of one ordering key can overtake each other unless the inbox is
    /// [`ordered`](Self::ordered).
    pub concurrency: usize,
    /// Whether messages of one ordering key are applied one after the other, as they come, and wait
    /// behind one of them that is parked. Default false. It needs a look at the parking lot per message.
    ///
    /// Several processes on one queue keep the order if it is declared with
    /// [`single_active_consumer`](transport::Queue::single_active_consumer): one of them gets everything,
    /// and the next one when it is gone, beginning with what that one had not acknowledged. All of them
    /// retry parked messages. Without it they get a key's messages at the same time, in no order. Killed
    /// processes and lost connections change nothing.
    ///
    /// What is not promised: an order other than the queue's (a producer that publishes a key's messages
    /// over two channels has none; a broker that dead-letters one or puts it at the end of the queue
    /// changes it); the place of what came early, of a conflict, of a refused replay, of what a person
    /// decides about, which others do not wait for or come in between; and that of a message whose key is
    /// not known before it is decoded: one that has no
    /// [`ORDERING_KEY`](message::name::ORDERING_KEY) header, and cannot be decoded or kills its process, is
    /// parked alone and nothing waits behind it. The messages of a key that a killed process was retrying
    /// wait for the end of its lease, a minute.
    pub ordered: bool,
    /// Whether later messages of a key go on while one that a person has to decide about is parked, at the
    /// price of the key's order around that one. Default false: they wait. Only for
    /// [`ordered`](Self::ordered).
    pub skip_reviewed: bool,
    /// Deliveries applied in one transaction, with one commit and one answer for all of them. Default 1.
    /// Raise it (16 to 256) where commits bound the rate: what is waiting anyway goes together, nothing
    /// waits for company. When one of them fails all are rolled back and applied one by one, so handlers
    /// run again. Redelivered messages, retries, and those whose handler prepares go alone.
    pub batch: usize,
    /// Deliveries the broker sends ahead without an answer. Default 0: four per unit of concurrency, or
    /// two batches if that is more.
    /// Raise it when the broker is far away.
    pub prefetch: u16,
    /// Runs of a failing handler before a person has to decide. Default 10; 1 for at the first failure.
    /// Counted in the database, over all processes.
    pub max_attempts: u32,
    /// The pause after the first failed attempt, by the database's clock; doubled after each further one,
    /// and each shortened at random by up to half. The message waits in `inbox_parked` meanwhile. Default
    /// 1 s.
    pub backoff: Duration,
    /// The longest pause between attempts. Default 10 min.
    pub backoff_max: Duration,
    /// The first pause of a message that came too early ([`Failure::Early`](crate::Failure::Early)); as
    /// long as it has waited by then for each further one. Default 1 s.
    pub early: Duration,
    /// The longest such pause. Default 30 s.
    pub early_max: Duration,
    /// How long a message may come before its time until a person has to decide. Default 1 h.
    pub early_for: Duration,
    /// Longest run of `prepare`, and of the transaction with `apply`. After that the message is parked as
    /// hung, to be tried again, and its connection is given up. A thread that does not return cannot be
    /// ended: its process has to be. Default 60 s. At least as long as the time limits of the
    /// database's [settings](db::Settings), which end the transaction, and well below the broker's
    /// `consumer_timeout` (30 min).
    pub handler_deadline: Duration,
    /// How often a message may be begun without coming to an end, its process having died each time, before
    /// a person has to decide. A first delivery is not counted. From the second such start on it runs with
    /// no other message beside it in its process. Default 3.
    pub crash_limit: u32,
    /// How often the parking lot is searched for messages that are due. Default 1 s. This process's own are
    /// found at their time.
    pub retry_poll: Duration,
    /// Repetitions of a whole transaction that lost against another one (serialization failure,
    /// deadlock, lock timeout, SQLite busy) before that counts as a failed attempt. Default 5.
    pub transaction_retries: u32,
    /// The first pause when broker or database are unavailable; doubled while they stay so, and each
    /// shortened at random by up to half. Default 100 ms.
    pub reconnect: Duration,
    /// The longest such pause. Default 10 s.
    pub reconnect_max: Duration,
    /// How long a delivery that cannot be settled, because the database is unavailable or another
    /// transaction holds its operation, is held without an answer and tried again, before it is given
    /// back to the queue; [`ordered`](Self::ordered), with all that came after it. Spends no attempt. Default 10 min. Keep it below the broker's
    /// `consumer_timeout` (30 min), and not near zero: RabbitMQ 4 drops or dead-letters a message of a
    /// quorum queue that was given back 20 times.
    pub hold: Duration,
    /// How long operations, results and parked messages are kept; the inbox then purges by itself.
    /// Default `None`: for ever, and nothing is purged.
    pub retention: Option<Retention>,
    /// How calls of effects are bounded, and how providers are asked about unknown ones.
    pub effects: effect::Settings,
    /// How often the share of duplicates is looked at, to warn when it leaves its recent range. Default
    /// 1 min; zero never looks. Shorten it to be told sooner where there are many deliveries: intervals
    /// with fewer than 50 are merged.
    pub duplicate_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: 4,
            ordered: false,
            skip_reviewed: false,
            batch: 1,
            prefetch: 0,
            max_attempts: 10,
            backoff: Duration::from_secs(1),
            backoff_max: Duration::from_secs(600),
            early: Duration::from_secs(1),
            early_max: Duration::from_secs(30),
            early_for: Duration::from_secs(3600),
            handler_deadline: Duration::from_secs(60),
            crash_limit: 3,
            retry_poll: Duration::from_secs(1),
            transaction_retries: 5,
            reconnect: Duration::from_millis(100),
            reconnect_max: Duration::from_secs(10),
            hold: Duration::from_secs(600),
            retention: None,
            effects: effect::Settings::default(),
            duplicate_interval: Duration::from_secs(60),
        }
    }
}

impl Settings {
    /// Those of effects as they hold in an inbox: a handler must not be given up before its call is.
    pub(crate) fn effects(&self) -> effect::Settings {
        let mut effects = self.effects.clone();
        effects.longest = self.handler_deadline / 2;
        effects.deadline = effects.deadline.min(effects.longest);
        effects.ask_deadline = effects.ask_deadline.min(effects.longest);
        effects
    }

    pub(crate) fn check(&self, database: &db::Settings) -> Result<(), BuildError> {
        let pool_size = database.pool_size;
        let bad =
            |setting, value: String, remedy| Err(BuildError::BadSetting { setting, value, remedy });
        if self.concurrency == 0 {
            return bad(
                "concurrency",
                "0".to_owned(),
                "nothing would ever be applied; set at least 1",
            );
        }
        if self.batch == 0 {
            return bad("batch", "0".to_owned(), "nothing would ever be applied; set at least 1");
        }
        if self.prefetch > 0 && usize::from(self.prefetch) < self.batch {
            let remedy =
                "no batch would ever be full; set at least the batch, or 0 for the default";
            return bad("prefetch", self.prefetch.to_string(), remedy);
        }
        if self.max_attempts == 0 {
            return bad(
                "max_attempts",
                "0".to_owned(),
                "no handler would ever run; set at least 1",
            );
        }
        if self.prefetch > 0 && usize::from(self.prefetch) < self.concurrency {
            let remedy =
                "workers would stay idle; set at least the concurrency, or 0 for the default";
            return bad("prefetch", self.prefetch.to_string(), remedy);
        }
        for (setting, first, longest) in [
            ("backoff", self.backoff, self.backoff_max),
            ("early", self.early, self.early_max),
            ("reconnect", self.reconnect, self.reconnect_max),
        ] {
            if first.is_zero() {
                return bad(
                    setting,
                    "0".to_owned(),
                    "failures would be repeated without a pause; set at least 1 ms",
                );
            }
            if first > longest {
                return bad(
                    setting,
                    format!("{first:?}"),
                    "it is above its maximum; lower it or raise that",
                );
            }
        }
        if self.handler_deadline.is_zero() {
            return bad(
                "handler_deadline",
                "0".to_owned(),
                "no handler could ever answer; set at least the time limits of the database's settings",
            );
        }
        if self.crash_limit == 0 || self.retry_poll.is_zero() {
            let setting = if self.crash_limit == 0 { "crash_limit" } else { "retry_poll" };
            return bad(setting, "0".to_owned(), "set at least 1, a millisecond for the poll");
        }
        self.effects.check()?;
        // A hung handler would hold its operation for longer than anybody waits for it.
        for (limit, value) in [
            ("statement_timeout", database.statement_timeout),
            ("idle_in_transaction_timeout", database.idle_in_transaction_timeout),
        ] {
            if value.is_zero() || value > self.handler_deadline {
                return Err(BuildError::OutlivesDeadline {
                    limit,
                    value,
                    deadline: self.handler_deadline,
                });
            }
        }
        if u64::from(pool_size) < self.concurrency as u64 {
            return Err(BuildError::PoolTooSmall { concurrency: self.concurrency, pool_size });
        }
        match &self.retention {
            Some(retention) => retention.check(self.retry_span()),
            None => Ok(()),
        }
    }

    /// The longest time for which a received message can be tried again.
    fn retry_span(&self) -> Duration {
        let waits = self.hold.saturating_add(self.early_for);
        self.backoff_max.saturating_mul(self.max_attempts).saturating_add(waits)
    }

    pub(crate) fn effective_prefetch(&self) -> u16 {
        match self.prefetch {
            0 => {
                let each = self.batch.saturating_mul(2).max(4);
                u16::try_from(self.concurrency.saturating_mul(each)).unwrap_or(u16::MAX)
            }
            set => set,
        }
    }

    pub(crate) const fn attempts_backoff(&self) -> Backoff {
        Backoff { first: self.backoff, longest: self.backoff_max }
    }

    pub(crate) const fn reconnect_backoff(&self) -> Backoff {
        Backoff { first: self.reconnect, longest: self.reconnect_max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As long as the broker keeps a message, and no time for a retry.
    fn short() -> Retention {
        Retention { operations: Duration::from_secs(7 * 86_400), ..Retention::default() }
    }

    #[test]
    fn a_call_has_half_of_its_handler_s_time_at_most() {
        let mut settings = Settings::default();
        assert_eq!(settings.effects().deadline, Duration::from_secs(30));
        settings.handler_deadline = Duration::from_secs(1);
        assert_eq!(settings.effects().deadline, Duration::from_millis(500));
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        type Spoil = fn(&mut Settings);
        let cases: [(Spoil, &str); 13] = [
            (|s| s.concurrency = 0, "concurrency is 0"),
            (|s| s.max_attempts = 0, "max_attempts is 0"),
            (|s| s.prefetch = 3, "prefetch is 3"),
            (|s| s.backoff = Duration::ZERO, "backoff is 0"),
            (|s| s.reconnect = Duration::from_secs(11), "reconnect is 11s"),
            (|s| s.retention = Some(short()), "retention.operations is 7days and a message"),
            (|s| s.concurrency = 9, "concurrency is 9 and the pool holds 8"),
            (|s| s.early = Duration::from_secs(31), "early is 31s"),
            (|s| s.handler_deadline = Duration::ZERO, "handler_deadline is 0"),
            (|s| s.crash_limit = 0, "crash_limit is 0"),
            (|s| s.retry_poll = Duration::ZERO, "retry_poll is 0"),
            (|s| s.effects.deadline = Duration::ZERO, "effects.deadline is 0"),
            (
                |s| s.handler_deadline = Duration::from_secs(59),
                "statement_timeout of the database is 60s",
            ),
        ];
        let mut database = db::Settings::default();
        assert_eq!(Settings::default().check(&database), Ok(()));
        database.idle_in_transaction_timeout = Duration::ZERO;
        let error = Settings::default().check(&database).expect_err("no limit").to_string();
        assert!(error.starts_with("idle_in_transaction_timeout of the database is 0"), "{error}");
        for (spoil, text) in cases {
            let mut settings = Settings::default();
            spoil(&mut settings);
            let error = settings.check(&db::Settings::default()).expect_err(text).to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }

    #[test]
    fn the_default_prefetch_follows_the_concurrency() {
        let mut settings = Settings::default();
        assert_eq!(settings.effective_prefetch(), 16);
        settings.concurrency = usize::MAX;
        assert_eq!(settings.effective_prefetch(), u16::MAX);
        settings.prefetch = 7;
        assert_eq!(settings.effective_prefetch(), 7);
    }
}
