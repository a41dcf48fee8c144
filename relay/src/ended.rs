/// How a session ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Shutdown,
    ShutdownForced,
    Drained,
    LeaseLost,
    LeaseExpired,
    Stalled,
    BrokerUnavailable,
    DatabaseUnavailable,
    Fatal,
}

impl Ended {
    pub(crate) const ALL: [Self; 9] = [
        Self::Shutdown,
        Self::ShutdownForced,
        Self::Drained,
        Self::LeaseLost,
        Self::LeaseExpired,
        Self::Stalled,
        Self::BrokerUnavailable,
        Self::DatabaseUnavailable,
        Self::Fatal,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::ShutdownForced => "shutdown_forced",
            Self::Drained => "drained",
            Self::LeaseLost => "lease_lost",
            Self::LeaseExpired => "lease_expired",
            Self::Stalled => "stalled",
            Self::BrokerUnavailable => "broker_unavailable",
            Self::DatabaseUnavailable => "database_unavailable",
            Self::Fatal => "fatal",
        }
    }
}
