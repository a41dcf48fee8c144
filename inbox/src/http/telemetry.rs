//! Metric names of requests. All carry the label `policy`, none a key, a tenant or a route.

use metrics::{Counter, Histogram, counter, histogram};

use super::RequestEnding;

/// Requests by how they ended; label `ending`, see [`RequestEnding::as_str`].
pub const REQUESTS: &str = "counterfoil_http_requests_total";
/// Whole transactions repeated over contention, or because their connection was lost before COMMIT.
pub const TRANSACTIONS_REPEATED: &str = "counterfoil_http_transactions_repeated_total";
/// Requests that waited for an earlier one of their key.
pub const WAITS: &str = "counterfoil_http_waits_total";
/// Runs taken over from an owner whose lease had ended: the handler may have run twice.
pub const TAKEOVERS: &str = "counterfoil_http_takeovers_total";
/// Leases that could not be renewed when it was time.
pub const RENEWALS_FAILED: &str = "counterfoil_http_renewals_failed_total";
/// What the purge removed; label `what`: `operations` or `requests`.
pub const PURGED: &str = "counterfoil_http_purged_total";
/// Seconds from the claim of a key to the answer, waits and repeats included.
pub const SECONDS: &str = "counterfoil_http_request_seconds";

/// Handles kept for the life of a policy.
pub(crate) struct Telemetry {
    endings: [Counter; RequestEnding::ALL.len()],
    pub(crate) transactions_repeated: Counter,
    pub(crate) waits: Counter,
    pub(crate) takeovers: Counter,
    pub(crate) renewals_failed: Counter,
    pub(crate) purged_operations: Counter,
    pub(crate) purged_requests: Counter,
    pub(crate) seconds: Histogram,
}

impl Telemetry {
    pub(crate) fn new(policy: &str) -> Self {
        let named = |name| counter!(name, "policy" => policy.to_owned());
        let purged = |what| counter!(PURGED, "policy" => policy.to_owned(), "what" => what);
        Self {
            endings: RequestEnding::ALL.map(
                |ending| counter!(REQUESTS, "policy" => policy.to_owned(), "ending" => ending.as_str()),
            ),
            transactions_repeated: named(TRANSACTIONS_REPEATED),
            waits: named(WAITS),
            takeovers: named(TAKEOVERS),
            renewals_failed: named(RENEWALS_FAILED),
            purged_operations: purged("operations"),
            purged_requests: purged("requests"),
            seconds: histogram!(SECONDS, "policy" => policy.to_owned()),
        }
    }

    pub(crate) fn ended(&self, ending: RequestEnding) {
        if let Some(at) = RequestEnding::ALL.iter().position(|candidate| *candidate == ending) {
            self.endings[at].increment(1);
        }
    }
}
