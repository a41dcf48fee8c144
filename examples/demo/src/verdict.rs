use std::collections::HashMap;

use inbox::Reason;

use crate::figures::{Figures, Provoked, count};
use crate::report::euros;

/// Everything that is off, in words; nothing when the demonstration succeeded.
pub(crate) fn problems(figures: &Figures, provoked: Option<&Provoked>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut must = |holds: bool, otherwise: String| {
        if !holds {
            problems.push(otherwise);
        }
    };
    arrived(figures, &mut must);
    inbox_is_right(figures, &mut must);
    parked(figures, &mut must);
    faults_happened(figures, &mut must);
    if let Some(provoked) = provoked {
        provoked_as_planned(figures, provoked, &mut must);
    }
    problems
}

fn arrived(figures: &Figures, must: &mut impl FnMut(bool, String)) {
    let standing = &figures.standing;
    let taken = count_map(&figures.payments);
    must(taken > 0, "the shop has taken no payment; was `produce` run?".to_owned());
    must(
        standing.announced.first == taken,
        format!(
            "{taken} payments were taken and {} told of: they belong to one transaction",
            standing.announced.first
        ),
    );
    must(
        standing.pending == 0,
        format!("{} committed messages were not published", standing.pending),
    );
    must(standing.waiting == 0, format!("{} messages are left in the queues", standing.waiting));
    let mut seen: HashMap<&str, i64> = HashMap::new();
    for credit in &figures.naive.credits {
        *seen.entry(&credit.payment_id).or_default() += 1;
    }
    let lost =
        figures.payments.keys().filter(|payment| !seen.contains_key(payment.as_str())).count();
    must(lost == 0, format!("{lost} payments never reached the naive consumer"));
    let told = standing.announced.total();
    let credited = count(&figures.naive.credits);
    must(
        credited >= told,
        format!("{told} messages were published and the naive consumer saw {credited}"),
    );
}

fn inbox_is_right(figures: &Figures, must: &mut impl FnMut(bool, String)) {
    let mut credited: HashMap<&str, (i64, i64)> = HashMap::new();
    for credit in &figures.billing.credits {
        let entry = credited.entry(&credit.payment_id).or_default();
        *entry = (entry.0 + 1, credit.cents);
    }
    let missing =
        figures.payments.keys().filter(|payment| !credited.contains_key(payment.as_str())).count();
    must(missing == 0, format!("{missing} payments were not credited through the inbox"));
    let twice = credited.values().filter(|(times, _)| *times > 1).count();
    must(twice == 0, format!("{twice} payments were credited more than once through the inbox"));
    let wrong = credited
        .iter()
        .filter(|(payment, (_, cents))| figures.payments.get(**payment) != Some(cents))
        .count();
    must(
        wrong == 0,
        format!(
            "{wrong} payments were credited through the inbox with an amount that was not paid"
        ),
    );
    let (ours, truth) = (figures.billing.balance, figures.truth());
    must(
        ours == truth,
        format!("the inbox's balance is {} and the true one {}", euros(ours), euros(truth)),
    );
    let (found, told) = (figures.standing.repeats.duplicates, figures.standing.announced.again);
    must(
        found >= told,
        format!("{told} payments were told a second time and {found} duplicates found"),
    );
}

fn parked(figures: &Figures, must: &mut impl FnMut(bool, String)) {
    let altered = figures.standing.announced.altered;
    let conflicts =
        figures.parked.iter().filter(|parked| parked.reason == Reason::Conflict).count();
    must(
        i64::try_from(conflicts) == Ok(altered),
        format!(
            "{altered} payments were told with another amount and {conflicts} conflicts parked"
        ),
    );
    for parked in figures.parked.iter().filter(|parked| parked.reason != Reason::Conflict).take(5) {
        must(
            false,
            format!(
                "message {:?} was parked as {}: {}",
                parked.message_id, parked.reason, parked.detail
            ),
        );
    }
}

/// A run in which nothing went wrong proves nothing.
fn faults_happened(figures: &Figures, must: &mut impl FnMut(bool, String)) {
    let announced = &figures.standing.announced;
    must(announced.again > 0, "no payment was told a second time".to_owned());
    must(announced.altered > 0, "no payment was told with another amount".to_owned());
    must(
        figures.naive.balance != figures.truth(),
        "the naive consumer is right: no fault was provoked".to_owned(),
    );
    let (naive, billing) = (figures.naive_redelivered(), figures.billing_redelivered());
    must(
        naive > 0 && billing > 0,
        format!(
            "redelivered were {naive} events to the naive consumer and {billing} to the inbox's: both should be some"
        ),
    );
}

fn provoked_as_planned(
    figures: &Figures,
    provoked: &Provoked,
    must: &mut impl FnMut(bool, String),
) {
    let (orders, taken) = (provoked.orders, figures.payments.len());
    must(orders == taken, format!("{orders} orders were planned and {taken} payments taken"));
    let deaths = [
        ("the relay", provoked.relay.deaths()),
        ("the naive consumer", provoked.naive.deaths()),
        ("the inbox's consumer", provoked.billing.deaths()),
    ];
    for (who, died) in deaths {
        must(
            died == provoked.deaths,
            format!("{who} died {died} times instead of {}", provoked.deaths),
        );
    }
    let told = figures.standing.announced.total();
    let confirmed = provoked.relay.confirmed();
    must(
        i64::try_from(confirmed).is_ok_and(|confirmed| confirmed > told),
        format!(
            "{confirmed} publishes were confirmed for {told} messages: a killed relay should have left repeats"
        ),
    );
    for (who, delivered, settled) in [
        ("naive consumer", provoked.naive.delivered(), count(&figures.naive.credits)),
        ("inbox's consumer", provoked.billing.delivered(), figures.billing_deliveries()),
    ] {
        must(
            i64::try_from(delivered) == Ok(settled),
            format!("the {who} received {delivered} deliveries and has {settled} in its books"),
        );
    }
}

fn count_map<K, V>(map: &HashMap<K, V>) -> i64 {
    i64::try_from(map.len()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hdrhistogram::Histogram;

    use super::*;
    use crate::figures::Account;
    use crate::settled::Standing;
    use crate::shop::{Announced, Credit, Repeats};

    fn credits(payments: &[(&str, i64)]) -> Account {
        let credit = |&(payment, cents): &(&str, i64)| Credit {
            payment_id: payment.to_owned(),
            cents,
            paid_at: 0,
            credited_at: 1,
        };
        Account {
            balance: payments.iter().map(|(_, cents)| cents).sum(),
            credits: payments.iter().map(credit).collect(),
        }
    }

    /// Two payments, one told again; one delivery repeated to each consumer. The altered amount is left
    /// out, since a parked message cannot be made by hand.
    fn figures() -> Figures {
        Figures {
            standing: Standing::made(
                Announced { first: 2, again: 1, altered: 0 },
                Repeats { duplicates: 2, conflicts: 0 },
            ),
            payments: [("a".to_owned(), 5), ("b".to_owned(), 7)].into(),
            billing: credits(&[("a", 5), ("b", 7)]),
            naive: credits(&[("a", 5), ("a", 5), ("b", 7), ("b", 7)]),
            parked: Vec::new(),
            latency: Histogram::new(3).expect("a histogram"),
            elapsed: Duration::from_secs(1),
        }
    }

    #[test]
    fn whatever_is_off_is_said() {
        type Spoil = fn(&mut Figures);
        let cases: [(Spoil, &str); 11] = [
            (|_| {}, "no payment was told with another amount"),
            (
                |f| f.billing.balance += 1,
                "the inbox's balance is 0.13 EUR and the true one 0.12 EUR",
            ),
            (|f| drop(f.billing.credits.pop()), "1 payments were not credited through the inbox"),
            (
                |f| f.billing.credits[1].payment_id = "a".to_owned(),
                "1 payments were credited more than once",
            ),
            (|f| f.billing.credits[0].cents = 6, "an amount that was not paid"),
            (|f| f.naive.balance = 12, "the naive consumer is right"),
            (|f| f.naive.credits.truncate(2), "1 payments never reached the naive consumer"),
            (|f| f.standing.pending = 3, "3 committed messages were not published"),
            (|f| f.standing.waiting = 4, "4 messages are left in the queues"),
            (
                |f| f.standing.repeats.duplicates = 0,
                "1 payments were told a second time and 0 duplicates found",
            ),
            (
                |f| f.standing.announced.altered = 1,
                "1 payments were told with another amount and 0 conflicts parked",
            ),
        ];
        for (spoil, expected) in cases {
            let mut figures = figures();
            spoil(&mut figures);
            let problems = problems(&figures, None);
            assert!(
                problems.iter().any(|problem| problem.contains(expected)),
                "{expected}: {problems:?}"
            );
        }
        assert_eq!(problems(&figures(), None).len(), 1, "{:?}", problems(&figures(), None));
    }
}
