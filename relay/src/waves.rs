//! In which order a lane's messages are in flight together.

use std::collections::{HashMap, VecDeque};

use message::Message;

/// A message with its place in the log.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) seq: i64,
    pub(crate) message: Message,
    /// Its place in the job.
    turn: usize,
}

/// Messages to be in flight together, and their places in the log.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) seqs: Vec<i64>,
    pub(crate) messages: Vec<Message>,
}

/// A job in windows in which no ordering key has more than its share: whatever is refused of a
/// window, nothing later of its key has been sent.
#[derive(Debug)]
pub(crate) struct Waves {
    keys: VecDeque<VecDeque<Item>>,
    keyless: VecDeque<Item>,
}

impl Waves {
    pub(crate) fn of(messages: Vec<(i64, Message)>) -> Self {
        let mut keys: VecDeque<VecDeque<Item>> = VecDeque::new();
        let mut keyless = VecDeque::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for (turn, (seq, message)) in messages.into_iter().enumerate() {
            let place = match &message.ordering_key {
                None => None,
                Some(key) => match places.get(key) {
                    Some(place) => Some(*place),
                    None => {
                        let place = keys.len();
                        places.insert(key.clone(), place);
                        keys.push_back(VecDeque::new());
                        Some(place)
                    }
                },
            };
            let item = Item { seq, message, turn };
            match place.and_then(|place| keys.get_mut(place)) {
                Some(of_key) => of_key.push_back(item),
                None => keyless.push_back(item),
            }
        }
        Self { keys, keyless }
    }

    /// The next at most `window` messages, with at most `per_key` of one key, in the order given.
    /// Everything of a key that `is_held` goes to `behind` instead. Empty when all are through.
    pub(crate) fn next(
        &mut self,
        window: usize,
        per_key: usize,
        is_held: impl Fn(&str) -> bool,
        behind: &mut Vec<Item>,
    ) -> Window {
        let mut taken: Vec<Item> =
            Vec::with_capacity(window.min(self.keys.len() + self.keyless.len()));
        for _ in 0..self.keys.len() {
            if taken.len() >= window {
                break;
            }
            let Some(mut of_key) = self.keys.pop_front() else { break };
            let key = of_key.front().and_then(|item| item.message.ordering_key.as_deref());
            if key.is_some_and(&is_held) {
                behind.extend(of_key);
                continue;
            }
            let share = per_key.min(window - taken.len()).min(of_key.len());
            taken.extend(of_key.drain(..share));
            if !of_key.is_empty() {
                self.keys.push_back(of_key);
            }
        }
        let room = (window - taken.len()).min(self.keyless.len());
        taken.extend(self.keyless.drain(..room));
        taken.sort_unstable_by_key(|item| item.turn);
        let (seqs, messages) = taken.into_iter().map(|item| (item.seq, item.message)).unzip();
        Window { seqs, messages }
    }
}

#[cfg(test)]
mod tests {
    use message::{Headers, MessageId};

    use super::*;

    fn job(keys: &[Option<&str>]) -> Vec<(i64, Message)> {
        let message = |key: &Option<&str>| Message {
            id: MessageId::new(),
            kind: "test".to_owned(),
            operation: "o".to_owned(),
            ordering_key: key.map(str::to_owned),
            exchange: "events".to_owned(),
            routing_key: String::new(),
            headers: Headers::new(),
            content_type: Message::JSON.to_owned(),
            payload: "{}".into(),
            created_at: std::time::SystemTime::now(),
        };
        keys.iter().map(message).zip(1..).map(|(message, seq)| (seq, message)).collect()
    }

    fn windows(waves: &mut Waves, window: usize, per_key: usize) -> Vec<Vec<i64>> {
        let mut all = Vec::new();
        loop {
            let next = waves.next(window, per_key, |_| false, &mut Vec::new());
            if next.seqs.is_empty() {
                return all;
            }
            all.push(next.seqs);
        }
    }

    #[test]
    fn no_key_is_in_flight_twice_and_each_keeps_its_order() {
        let (a, b) = (Some("a"), Some("b"));
        let job = job(&[a, a, b, None, a, b, None]);
        assert_eq!(
            windows(&mut Waves::of(job.clone()), 10, 1),
            vec![vec![1, 3, 4, 7], vec![2, 6], vec![5]]
        );
        assert_eq!(
            windows(&mut Waves::of(job.clone()), 10, 2),
            vec![vec![1, 2, 3, 4, 6, 7], vec![5]]
        );
        let cut = windows(&mut Waves::of(job), 2, 1);
        assert_eq!(cut.iter().flatten().count(), 7);
        for of_key in [vec![1, 2, 5], vec![3, 6]] {
            let seen: Vec<i64> =
                cut.iter().flatten().copied().filter(|seq| of_key.contains(seq)).collect();
            assert_eq!(seen, of_key);
        }
        assert!(cut.iter().all(|window| window.len() <= 2), "{cut:?}");
    }

    #[test]
    fn all_of_a_held_key_goes_behind() {
        let mut waves = Waves::of(job(&[Some("a"), Some("b"), Some("a"), None]));
        let mut behind = Vec::new();
        let first = waves.next(10, 1, |key| key == "a", &mut behind);
        assert_eq!(first.seqs, [2, 4]);
        assert_eq!(behind.iter().map(|item| item.seq).collect::<Vec<_>>(), [1, 3]);
        assert!(waves.next(10, 1, |_| false, &mut behind).seqs.is_empty());
    }
}
