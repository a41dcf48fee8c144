//! What a bank sends about its accounts: most bookings once, some again, some under another event id, and
//! a few with another amount; and what must be stored of them in the end.

use std::collections::{BTreeMap, BTreeSet};

use message::{Message, MessageId};
use transport::{Publisher, Verdict};

use crate::bookings::Booking;

/// On how many accounts.
pub const ACCOUNTS: i64 = 100;
/// Messages of one publish.
const CHUNK: usize = 1_000;
/// A copy follows its original at most so many messages later: in the same hands, or in others.
const NEAR: i64 = 2_000;

/// Bookings, numbered over all accounts from 0.
pub struct Statement {
    bookings: i64,
    ids: Vec<MessageId>,
    changed: BTreeMap<i64, MessageId>,
}

/// One message of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Original,
    /// The same message again.
    Again,
    /// The same event under an id of its own.
    OtherId,
    /// Another amount.
    Changed,
}

impl Statement {
    /// So many bookings, the same number on each account.
    #[must_use]
    pub fn of(bookings: i64) -> Self {
        assert_eq!(bookings % (ACCOUNTS * 20), 0, "the shares come out even");
        let ids = (0..bookings).map(|_| MessageId::new()).collect();
        Self { bookings, ids, changed: BTreeMap::new() }
    }

    fn booking(at: i64) -> Booking {
        Booking::new(at % ACCOUNTS, at / ACCOUNTS + 1)
    }

    /// How many messages repeat a booking as it is: one in ten comes again, one in twenty under another id.
    fn repeats(at: i64) -> Option<Part> {
        match at % 20 {
            3 | 13 => Some(Part::Again),
            7 => Some(Part::OtherId),
            _ => None,
        }
    }

    /// One in a hundred, all of the first half.
    fn is_changed(&self, at: i64) -> bool {
        at % 50 == 25 && at < self.bookings / 2
    }

    /// Sends everything.
    ///
    /// A changed one is half of all messages behind its original: by the time anybody gets it the original
    /// has taken effect, wherever it was delivered in between.
    pub async fn publish(&mut self, broker: &impl Publisher, exchange: &str) {
        let mut order = Vec::new();
        for at in 0..self.bookings {
            order.push((at, Part::Original, at));
            if let Some(part) = Self::repeats(at) {
                order.push((at + fastrand::i64(0..NEAR), part, at));
            }
            if self.is_changed(at) {
                order.push((at + self.bookings / 2, Part::Changed, at));
            }
        }
        order.sort_unstable();
        let mut lane = broker.open_lane().await.expect("a lane");
        for chunk in order.chunks(CHUNK) {
            let messages: Vec<_> =
                chunk.iter().map(|(_, part, at)| self.message(*part, *at, exchange)).collect();
            let verdicts = lane.publish(&messages).await.expect("settled");
            assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Confirmed));
        }
    }

    fn message(&mut self, part: Part, at: i64, exchange: &str) -> Message {
        let index = usize::try_from(at).expect("not negative");
        let booking = Self::booking(at);
        match part {
            Part::Original | Part::Again => {
                Message { id: self.ids[index], ..booking.message(exchange) }
            }
            Part::OtherId => booking.message(exchange),
            Part::Changed => {
                let altered = Booking { cents: booking.cents + 1, ..booking };
                let message = altered.message(exchange);
                self.changed.insert(at, message.id);
                message
            }
        }
    }

    /// How many messages repeat what another one said.
    #[must_use]
    pub fn repeated(&self) -> i64 {
        (0..self.bookings).filter(|at| Self::repeats(*at).is_some()).count() as i64
    }

    /// The ids of those with another amount.
    #[must_use]
    pub fn changed_ids(&self) -> BTreeSet<String> {
        self.changed.values().map(ToString::to_string).collect()
    }

    /// What must be true of each operation: its id, the id of its message, how many came again at least,
    /// and whether one came with another amount.
    pub fn operations(&self) -> impl Iterator<Item = (String, String, bool, bool)> {
        self.ids.iter().zip(0..).map(|(id, at)| {
            let operation = message::Event::operation(&Self::booking(at)).into_owned();
            (operation, id.to_string(), Self::repeats(at).is_some(), self.is_changed(at))
        })
    }

    /// Each account's bookings and their sum: 1 + 2 + … + n.
    #[must_use]
    pub fn balance(&self) -> (i64, i64) {
        let each = self.bookings / ACCOUNTS;
        (each, each * (each + 1) / 2)
    }
}
