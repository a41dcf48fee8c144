use crate::ExchangeKind;

/// An exchange with its bindings.
pub(super) struct Routes {
    pub(super) kind: ExchangeKind,
    bindings: Vec<Bound>,
}

struct Bound {
    queue: u64,
    key: String,
}

impl Routes {
    pub(super) const fn new(kind: ExchangeKind) -> Self {
        Self { kind, bindings: Vec::new() }
    }

    /// The same binding twice is one.
    pub(super) fn bind(&mut self, queue: u64, key: &str) {
        if !self.bindings.iter().any(|bound| bound.queue == queue && bound.key == key) {
            self.bindings.push(Bound { queue, key: key.to_owned() });
        }
    }

    pub(super) fn unbind(&mut self, queue: u64) {
        self.bindings.retain(|bound| bound.queue != queue);
    }

    /// The queues for a routing key, each once however many of its bindings match.
    pub(super) fn route(&self, routing_key: &str, queues: &mut Vec<u64>) {
        queues.clear();
        for bound in &self.bindings {
            let matches = match self.kind {
                ExchangeKind::Fanout => true,
                ExchangeKind::Direct => bound.key == routing_key,
                ExchangeKind::Topic => topic_matches(&bound.key, routing_key),
            };
            if matches && !queues.contains(&bound.queue) {
                queues.push(bound.queue);
            }
        }
    }
}

/// AMQP topic rules: words are separated by dots, `*` stands for exactly one word, `#` for any number
/// of words, none included.
fn topic_matches(pattern: &str, key: &str) -> bool {
    // An empty text has no words, but splitting it gives one.
    let mut pattern =
        if pattern.is_empty() { vec![] } else { pattern.split('.').collect::<Vec<_>>() };
    // Neighbouring `#` say nothing more than one.
    pattern.dedup_by(|a, b| *a == "#" && *b == "#");
    let words = if key.is_empty() { vec![] } else { key.split('.').collect::<Vec<_>>() };
    // The classic glob walk: on a mismatch let the last `#` swallow one word more. Linear in space
    // and at most quadratic in time, where recursion is exponential in the number of `#`.
    let (mut p, mut w) = (0, 0);
    let mut last_hash = None;
    while w < words.len() {
        match pattern.get(p) {
            Some(&"#") => {
                last_hash = Some((p, w));
                p += 1;
            }
            Some(word) if *word == "*" || *word == words[w] => {
                p += 1;
                w += 1;
            }
            _ => match &mut last_hash {
                Some((hash, swallowed)) => {
                    *swallowed += 1;
                    p = *hash + 1;
                    w = *swallowed;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|word| *word == "#")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_specification() {
        for (pattern, key, expected) in [
            ("*.stock.#", "usd.stock", true),
            ("*.stock.#", "eur.stock.db", true),
            ("*.stock.#", "stock.nasdaq", false),
            ("#", "", true),
            ("#", "a.b.c", true),
            ("*", "", false),
            ("*", "a", true),
            ("*", "a.b", false),
            ("", "", true),
            ("", "a", false),
            ("a.#", "a", true),
            ("#.a", "a", true),
            ("a.#.b", "a.b", true),
            ("a.#.b.#.c", "a.x.b.b.y.c", true),
            ("a.*.#", "a", false),
            ("*.*", ".", true),
        ] {
            assert_eq!(topic_matches(pattern, key), expected, "{pattern:?} {key:?}");
        }
    }

    /// The rules word for word.
    fn naive(pattern: &[&str], words: &[&str]) -> bool {
        match (pattern, words) {
            ([], []) => true,
            (["#", rest @ ..], _) => {
                naive(rest, words) || (!words.is_empty() && naive(pattern, &words[1..]))
            }
            ([first, pattern @ ..], [word, words @ ..]) => {
                (*first == "*" || first == word) && naive(pattern, words)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_rules_word_for_word(
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "#"]), 0..7),
            words in prop::collection::vec(prop::sample::select(vec!["a", "b"]), 0..8),
        ) {
            prop_assert_eq!(topic_matches(&pattern.join("."), &words.join(".")), naive(&pattern, &words));
        }
    }
}
