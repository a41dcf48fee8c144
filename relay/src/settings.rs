use std::time::Duration;

use crate::backoff::Backoff;

/// How the relay works. [`validate`](Settings::validate) is called before it starts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Which cursor of the log to move. Default `relay`. Relays of one name share the work as active
    /// and standby; another name reads the whole log again, for another broker.
    pub cursor: String,
    /// How the holder calls itself in `outbox_cursors`. Default: host name, process id and a random
    /// part. Must differ between processes.
    pub owner: String,
    /// How long the lease lasts without renewal, by the database's clock; a standby takes over this
    /// long after the holder died. Default 20 s. Must be more than two broker heartbeats, so that a
    /// frozen holder has lost its connection before a successor starts, and more than the publish
    /// timeout.
    pub lease: Duration,
    /// How often a standby asks for the lease. Default 1 s.
    pub standby_poll: Duration,
    /// Channels to publish on, with messages of one ordering key always on the same. Default 4. More
    /// helps while the broker's confirms are the bottleneck.
    pub lanes: usize,
    /// Most rows read in one step. Default 1,000. A crash repeats at most `chunk_rows` ×
    /// `chunks_in_flight` messages.
    pub chunk_rows: u32,
    /// Most bytes of payload read in one step; one row is read whatever its size. Default 2 MiB.
    pub chunk_bytes: u64,
    /// Steps read and not yet settled. Default 3. 1 turns pipelining off.
    pub chunks_in_flight: usize,
    /// Wait between two reads while messages keep coming. Default 10 ms. It is the floor of the
    /// delay from commit to publish.
    pub poll_busy: Duration,
    /// Longest wait between two reads while none come. Default 100 ms. With [`Wake::Notify`] it can be much
    /// longer: it counts while commits are sure to be told, and 100 ms at most else.
    pub poll_idle: Duration,
    /// How an idle relay learns of a commit. Default [`Wake::Poll`].
    pub wake: Wake,
    /// How often held messages are looked for whose time has come. Default 500 ms.
    pub poll_holds: Duration,
    /// Wait between attempts at a held message. Default 1 s doubling to 5 min, by the database's
    /// clock.
    pub hold_backoff: Backoff,
    /// Attempts after which a refused message is dead and waits for an operator. Default 20, which
    /// takes about an hour. An unavailable broker costs no attempt.
    pub max_attempts: u32,
    /// What happens to later messages of an ordering key whose first one is dead. Default
    /// [`DeadKey::Block`].
    pub dead_key: DeadKey,
    /// Most messages of one ordering key in flight. Default 1: then nothing of a key is sent before
    /// the broker has taken what comes before it, and order per key holds around refusals too. It costs
    /// a key that makes up most of the traffic a round trip per message. Raise it where such a key
    /// matters more than its order around a refused message.
    pub key_in_flight: usize,
    /// The share of new messages refused, from 0 to 1, above which nothing new is handed on for a
    /// while. Default 0.5; 1 turns this off.
    pub refused_share: f64,
    /// Messages after which the share is looked at. Default 100.
    pub refused_sample: u64,
    /// How long nothing new is handed on after the share was passed; then a few messages show whether
    /// they are still refused. Default 1 s doubling to 30 s.
    pub circuit_pause: Backoff,
    /// Messages held, those that only wait for their time or behind another of their key not counted,
    /// from which on nothing new is handed on. Default 100,000. Bounds the relay's memory for their
    /// ordering keys too.
    pub max_holds: u64,
    /// How long messages may be in flight without any of them being settled before the session is
    /// given up and begun anew. Default 60 s; more than the publish timeout. A broker that says that it
    /// blocks publishing is waited for.
    pub stall_timeout: Duration,
    /// How long messages stay in the log after every cursor has handed them on. Default: for ever.
    /// Keep it longer than any replay that is wanted.
    pub retention: Option<Duration>,
    /// Most rows deleted in one statement. Default 2,000.
    pub purge_rows: u32,
    /// Wait before connecting again to a broker or database that failed. Default 100 ms doubling to
    /// 1.5 s.
    pub reconnect: Backoff,
    /// Longest time to settle what is in flight after a shutdown was asked for. Default 15 s; what is
    /// not settled then is published again by the next holder.
    pub shutdown_timeout: Duration,
}

/// What happens to later messages of an ordering key whose first one is dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeadKey {
    /// They wait behind it until an operator decides.
    #[default]
    Block,
    /// They go on without it.
    Skip,
}

/// How an idle relay learns of a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wake {
    /// It looks again and again.
    #[default]
    Poll,
    /// It is told as well, which costs it a connection beside the pool and each commit that tells it some
    /// time: choose it where a message now and then must go out at once, or where reads of an idle relay are
    /// too many. On PostgreSQL only, not through a transaction pooler; and `relay wakeup on` must have been
    /// said, else this is `Poll`.
    Notify,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cursor: "relay".to_owned(),
            owner: default_owner(),
            lease: Duration::from_secs(20),
            standby_poll: Duration::from_secs(1),
            lanes: 4,
            chunk_rows: 1_000,
            chunk_bytes: 2 * 1024 * 1024,
            chunks_in_flight: 3,
            poll_busy: Duration::from_millis(10),
            poll_idle: Duration::from_millis(100),
            wake: Wake::Poll,
            poll_holds: Duration::from_millis(500),
            hold_backoff: Backoff {
                first: Duration::from_secs(1),
                longest: Duration::from_secs(300),
            },
            max_attempts: 20,
            dead_key: DeadKey::Block,
            key_in_flight: 1,
            refused_share: 0.5,
            refused_sample: 100,
            circuit_pause: Backoff {
                first: Duration::from_secs(1),
                longest: Duration::from_secs(30),
            },
            max_holds: 100_000,
            stall_timeout: Duration::from_secs(60),
            retention: None,
            purge_rows: 2_000,
            reconnect: Backoff {
                first: Duration::from_millis(100),
                longest: Duration::from_millis(1_500),
            },
            shutdown_timeout: Duration::from_secs(15),
        }
    }
}

fn default_owner() -> String {
    let host = std::env::var("HOSTNAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unnamed-host".to_owned());
    format!("{host}/{}/{}", std::process::id(), uuid::Uuid::new_v4().simple())
}

/// A setting, or two together, that would void a guarantee.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} = {value} cannot be used: {reason}; {remedy}")]
pub struct SettingsError {
    /// Its name.
    pub setting: &'static str,
    /// Its value.
    pub value: String,
    /// What would go wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl Settings {
    /// Checks the settings, alone and against the broker's heartbeat and publish timeout.
    ///
    /// # Errors
    /// The first [`SettingsError`] found.
    pub fn validate(
        &self,
        heartbeat: Option<Duration>,
        publish_timeout: Duration,
    ) -> Result<(), SettingsError> {
        let refuse = |setting, value: String, reason: &str, remedy: String| {
            Err(SettingsError { setting, value, reason: reason.to_owned(), remedy })
        };
        for (setting, value) in [("cursor", &self.cursor), ("owner", &self.owner)] {
            if let Err(error) = message::check_name(setting, value) {
                return refuse(
                    setting,
                    format!("{value:?}"),
                    "it is not a name",
                    error.to_string(),
                );
            }
        }
        for (setting, value) in [
            ("lanes", self.lanes),
            ("chunk_rows", self.chunk_rows as usize),
            ("chunks_in_flight", self.chunks_in_flight),
            ("max_attempts", self.max_attempts as usize),
            ("key_in_flight", self.key_in_flight),
            ("max_holds", usize::try_from(self.max_holds).unwrap_or(usize::MAX)),
            ("purge_rows", self.purge_rows as usize),
            ("chunk_bytes", usize::try_from(self.chunk_bytes).unwrap_or(usize::MAX)),
        ] {
            if value == 0 {
                return refuse(
                    setting,
                    "0".to_owned(),
                    "nothing would ever be sent",
                    "use 1 or more".to_owned(),
                );
            }
        }
        for (setting, value) in [
            ("poll_busy", self.poll_busy),
            ("poll_idle", self.poll_idle),
            ("poll_holds", self.poll_holds),
            ("standby_poll", self.standby_poll),
            ("reconnect.first", self.reconnect.first),
            ("hold_backoff.first", self.hold_backoff.first),
            ("reconnect.longest", self.reconnect.longest),
            ("hold_backoff.longest", self.hold_backoff.longest),
            ("circuit_pause.first", self.circuit_pause.first),
            ("circuit_pause.longest", self.circuit_pause.longest),
        ] {
            if value.is_zero() {
                let remedy = "use 1 ms or more".to_owned();
                return refuse(setting, "0".to_owned(), "the relay would spin", remedy);
            }
        }
        if !(self.refused_share > 0.0 && self.refused_share <= 1.0) {
            return refuse(
                "refused_share",
                self.refused_share.to_string(),
                "a share lies between 0 and 1, and at 0 a single refusal would stop everything",
                "use a number above 0, up to 1".to_owned(),
            );
        }
        if self.stall_timeout <= publish_timeout {
            return refuse(
                "stall_timeout",
                format!("{:?}", self.stall_timeout),
                "a batch that is still waited for would count as stalled",
                format!("make it more than the publish timeout ({publish_timeout:?})"),
            );
        }
        if let Some(heartbeat) = heartbeat
            && self.lease <= 2 * heartbeat
        {
            return refuse(
                "lease",
                format!("{:?}", self.lease),
                "a frozen holder's connection could outlive its lease and publish beside its successor",
                format!(
                    "make it more than two heartbeats ({heartbeat:?} each), or lower the heartbeat"
                ),
            );
        }
        if self.lease <= publish_timeout {
            return refuse(
                "lease",
                format!("{:?}", self.lease),
                "it could end while a publish is still waited for",
                format!("make it more than the publish timeout ({publish_timeout:?})"),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(change: impl FnOnce(&mut Settings)) -> Result<(), &'static str> {
        let mut settings = Settings::default();
        change(&mut settings);
        let five = Duration::from_secs(5);
        settings.validate(Some(five), five).map_err(|error| error.setting)
    }

    #[test]
    fn what_would_void_a_guarantee_is_refused() {
        assert_eq!(verdict(|_| {}), Ok(()));
        assert_eq!(verdict(|s| s.lease = Duration::from_secs(10)), Err("lease"));
        assert_eq!(verdict(|s| s.lanes = 0), Err("lanes"));
        assert_eq!(verdict(|s| s.cursor.clear()), Err("cursor"));
        assert_eq!(verdict(|s| s.poll_idle = Duration::ZERO), Err("poll_idle"));
        assert_eq!(verdict(|s| s.max_attempts = 0), Err("max_attempts"));
        assert_eq!(verdict(|s| s.key_in_flight = 0), Err("key_in_flight"));
        assert_eq!(verdict(|s| s.refused_share = 0.0), Err("refused_share"));
        assert_eq!(verdict(|s| s.refused_share = f64::NAN), Err("refused_share"));
        assert_eq!(verdict(|s| s.stall_timeout = Duration::from_secs(5)), Err("stall_timeout"));
    }

    #[test]
    fn the_lease_must_outlast_a_publish_and_the_text_says_how() {
        let settings = Settings { lease: Duration::from_secs(8), ..Settings::default() };
        let error =
            settings.validate(None, Duration::from_secs(8)).expect_err("refused").to_string();
        assert!(error.contains("lease = 8s") && error.contains("publish timeout (8s)"), "{error}");
    }
}
