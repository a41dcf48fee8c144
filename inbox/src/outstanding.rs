use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The deliveries of one subscription that have no answer yet, in order.
#[derive(Debug, Default)]
pub(crate) struct Outstanding {
    numbers: Mutex<Numbers>,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Numbers {
    next: u64,
    open: BTreeSet<u64>,
}

/// A delivery's place among them.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    number: u64,
    among: Arc<Outstanding>,
}

impl Outstanding {
    pub(crate) fn ticket(self: &Arc<Self>) -> Ticket {
        let mut numbers = self.numbers();
        let number = numbers.next;
        numbers.next += 1;
        numbers.open.insert(number);
        Ticket { number, among: self.clone() }
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every delivery so far has its answer.
    pub(crate) async fn all_answered(&self) {
        while !self.numbers().open.is_empty() {
            self.emptied.notified().await;
        }
    }
}

impl Ticket {
    /// After the answer was given and not before: one for several at once must not reach a delivery
    /// whose own answer is on its way, which a broker takes for a breach of protocol.
    pub(crate) fn answered(&self) {
        let mut numbers = self.among.numbers();
        numbers.open.remove(&self.number);
        if numbers.open.is_empty() {
            self.among.emptied.notify_one();
        }
    }

    /// Whether these, in their order, are all that is open up to the last of them.
    pub(crate) fn are_all_until_the_last(tickets: &[&Self]) -> bool {
        let Some(first) = tickets.first() else { return false };
        let numbers = first.among.numbers();
        tickets.iter().all(|ticket| Arc::ptr_eq(&ticket.among, &first.among))
            && tickets
                .iter()
                .map(|ticket| &ticket.number)
                .eq(numbers.open.iter().take(tickets.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_covers_several_only_where_nothing_before_them_is_open() {
        let subscription = Arc::new(Outstanding::default());
        let [a, b, c, d] = [(); 4].map(|()| subscription.ticket());
        assert!(Ticket::are_all_until_the_last(&[&a, &b]));
        assert!(!Ticket::are_all_until_the_last(&[&b, &c]), "a is open");
        assert!(!Ticket::are_all_until_the_last(&[&a, &c]), "b is open");
        assert!(!Ticket::are_all_until_the_last(&[]));
        a.answered();
        assert!(Ticket::are_all_until_the_last(&[&b, &c, &d]));
        let other = Arc::new(Outstanding::default()).ticket();
        assert!(!Ticket::are_all_until_the_last(&[&b, &other]));
    }
}
