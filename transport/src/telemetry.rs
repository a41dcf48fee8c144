//! Metric names of this crate. All are counters with the label `role`: `publish` or `consume`.

/// Connections opened.
pub const CONNECTIONS_OPENED: &str = "counterfoil_transport_connections_opened_total";
/// Connections that ended on an error, seen from our side.
pub const CONNECTIONS_LOST: &str = "counterfoil_transport_connections_lost_total";
/// Channels the broker closed over a message. Each costs a window that is sent again; a steady rate
/// is a missing exchange, a missing permission or a message over the broker's size limit.
pub const CHANNELS_CLOSED: &str = "counterfoil_transport_channels_closed_total";

#[cfg(feature = "rabbitmq")]
pub(crate) fn connection_opened(role: &'static str) {
    metrics::counter!(CONNECTIONS_OPENED, "role" => role).increment(1);
}

#[cfg(feature = "rabbitmq")]
pub(crate) fn connection_lost(role: &'static str) {
    metrics::counter!(CONNECTIONS_LOST, "role" => role).increment(1);
}

#[cfg(feature = "rabbitmq")]
pub(crate) fn channel_closed(role: &'static str) {
    metrics::counter!(CHANNELS_CLOSED, "role" => role).increment(1);
}
