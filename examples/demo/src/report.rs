use std::fmt::Write as _;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};

use crate::figures::{Figures, Provoked, count};

/// The tables at the end.
pub(crate) fn tables(figures: &Figures, provoked: Option<&Provoked>) -> String {
    format!("{}\n\n{}", balances(figures), run(figures, provoked))
}

fn balances(figures: &Figures) -> Table {
    let truth = figures.truth();
    let standing = &figures.standing;
    let announced = &standing.announced;
    let distinct = i64::try_from(figures.payments.len()).unwrap_or(i64::MAX);
    let mut table = table(["", "naive consumer", "Counterfoil inbox", "truth"]);
    let mut row = |name: &str, naive: String, ours: String, truth: String| {
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row(vec![Cell::new(name), right(naive), right(ours), right(truth)]);
    };
    row(
        "owed to the merchants",
        euros(figures.naive.balance),
        euros(figures.billing.balance),
        euros(truth),
    );
    row(
        "off by",
        off(figures.naive.balance - truth),
        off(figures.billing.balance - truth),
        String::new(),
    );
    row(
        "deliveries received",
        whole(count(&figures.naive.credits)),
        whole(figures.billing_deliveries()),
        String::new(),
    );
    row(
        "· a new payment",
        credited(announced.first),
        credited(count(&figures.billing.credits)),
        whole(distinct),
    );
    row(
        "· the same event again",
        credited(figures.naive_redelivered()),
        format!(
            "{} recognised",
            whole(
                figures.billing_redelivered() - (figures.altered_deliveries() - announced.altered)
            )
        ),
        whole(0),
    );
    row(
        "· the same payment, second event id",
        credited(announced.again),
        format!("{} recognised", whole(announced.again)),
        whole(0),
    );
    row(
        "· the same payment, other amount",
        credited(announced.altered),
        format!("{} parked", whole(count(&figures.parked))),
        whole(0),
    );
    table
}

fn run(figures: &Figures, provoked: Option<&Provoked>) -> Table {
    let mut table = table(["the run", ""]);
    let mut row = |name: &str, text: String| {
        table.add_row(vec![Cell::new(name), Cell::new(text)]);
    };
    let announced = figures.standing.announced;
    row(
        "enqueued",
        format!("{} messages, with their business transactions", whole(announced.total())),
    );
    if let Some(provoked) = provoked {
        let confirmed = i64::try_from(provoked.relay.confirmed()).unwrap_or(i64::MAX);
        let repeats = confirmed - announced.total();
        row(
            "published",
            format!(
                "{} confirmed, {} of them again after the relay died",
                whole(confirmed),
                whole(repeats)
            ),
        );
        row(
            "redelivered by the broker",
            format!(
                "{} to naive, {} to inbox",
                provoked.naive.redelivered(),
                provoked.billing.redelivered()
            ),
        );
        row(
            "killed",
            format!(
                "relay {}× in mid-stream; naive {}×, inbox {}× between commit and ack",
                provoked.relay.deaths(),
                provoked.naive.deaths(),
                provoked.billing.deaths()
            ),
        );
    }
    let seconds = figures.elapsed.as_secs_f64().max(1e-6);
    let per_second = |number: i64| whole((number as f64 / seconds) as i64);
    let both = figures.billing_deliveries() + count(&figures.naive.credits);
    row(
        "throughput",
        format!(
            "{} payments/s, {} deliveries/s to both consumers, {seconds:.1} s",
            per_second(count(&figures.billing.credits)),
            per_second(both)
        ),
    );
    let mut latency = String::new();
    for (name, quantile) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
        let micros = figures.latency.value_at_quantile(quantile);
        let _ = write!(latency, "{name} {}, ", millis(micros));
    }
    let _ = write!(latency, "max {}", millis(figures.latency.max()));
    row("payment to credit (inbox)", latency);
    if let Some(provoked) = provoked {
        row("", format!("with at most {} payments on their way", provoked.window));
    }
    table
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    table
}

fn credited(number: i64) -> String {
    format!("{} credited", whole(number))
}

fn off(cents: i64) -> String {
    if cents == 0 {
        "nothing".to_owned()
    } else {
        format!("{}{}", if cents > 0 { "+" } else { "" }, euros(cents))
    }
}

/// Cents as euros.
pub(crate) fn euros(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}{}.{:02} EUR", grouped(cents / 100), cents % 100)
}

fn whole(number: i64) -> String {
    format!("{}{}", if number < 0 { "-" } else { "" }, grouped(number.unsigned_abs()))
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn millis(micros: u64) -> String {
    if micros < 10_000 {
        format!("{:.1} ms", micros as f64 / 1e3)
    } else {
        format!("{} ms", grouped(micros / 1_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_readable() {
        assert_eq!(euros(0), "0.00 EUR");
        assert_eq!(euros(123_456_789), "1,234,567.89 EUR");
        assert_eq!(euros(-5), "-0.05 EUR");
        assert_eq!(off(12_300), "+123.00 EUR");
        assert_eq!(whole(-1_000), "-1,000");
    }
}
