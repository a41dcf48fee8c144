use std::collections::HashSet;
use std::ops::Range;

use message::Message;

use crate::{Poison, Refusal, Verdict};

/// A batch on its way to one verdict for each message.
pub(super) struct Batch<'a> {
    messages: &'a [Message],
    verdicts: Vec<Option<Verdict>>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(messages: &'a [Message]) -> Self {
        Self { messages, verdicts: vec![None; messages.len()] }
    }

    /// `None` where a message has no verdict.
    pub(super) fn verdicts(self) -> Option<Vec<Verdict>> {
        self.verdicts.into_iter().collect()
    }

    pub(super) fn message(&self, index: usize) -> &'a Message {
        &self.messages[index]
    }

    /// The batch in pieces of at most `size`.
    pub(super) fn windows(&self, size: usize) -> Vec<Range<usize>> {
        let count = self.messages.len();
        (0..count).step_by(size.max(1)).map(|start| start..count.min(start + size)).collect()
    }

    /// The ones among `indexes` that still lack a verdict, in order.
    pub(super) fn unsettled(&self, indexes: impl IntoIterator<Item = usize>) -> Vec<usize> {
        indexes.into_iter().filter(|index| self.verdicts[*index].is_none()).collect()
    }

    /// Each exchange among `indexes` that is not known, once.
    pub(super) fn exchanges_not_in(
        &self,
        known: &HashSet<String>,
        indexes: &[usize],
    ) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for exchange in indexes.iter().map(|index| &self.messages[*index].exchange) {
            if !known.contains(exchange) && !names.contains(exchange) {
                names.push(exchange.clone());
            }
        }
        names
    }

    /// Poisons what does not pass `check`.
    pub(super) fn refuse(&mut self, check: impl Fn(&Message) -> Result<(), Poison>) {
        for (message, verdict) in self.messages.iter().zip(&mut self.verdicts) {
            if let Err(poison) = check(message) {
                *verdict = Some(Verdict::Poison(poison));
            }
        }
    }

    /// Takes the verdict back from messages whose headers do not fit the frames; whether there were any.
    pub(super) fn pardon_long_headers(&mut self) -> bool {
        let mut any = false;
        for verdict in &mut self.verdicts {
            if matches!(verdict, Some(Verdict::Poison(Poison::HeadersTooLarge { .. }))) {
                *verdict = None;
                any = true;
            }
        }
        any
    }

    pub(super) fn settle(&mut self, indexes: &[usize], verdicts: Vec<Verdict>) {
        for (index, verdict) in indexes.iter().zip(verdicts) {
            self.verdicts[*index] = Some(verdict);
        }
    }

    /// Gives everything unsettled for `exchange` one verdict.
    pub(super) fn refuse_exchange(&mut self, exchange: &str, verdict: &Verdict) {
        self.spread(verdict, |message| message.exchange == exchange);
    }

    /// Gives the message that closed a channel its verdict, and at once everything unsettled that
    /// would close a channel for the same reason: each takes a channel and a window with it.
    pub(super) fn blame(&mut self, offender: usize, verdict: Verdict) {
        let guilty = self.message(offender);
        match &verdict {
            Verdict::Refused(Refusal::ExchangeMissing { .. }) => {
                self.refuse_exchange(&guilty.exchange, &verdict)
            }
            // Topic authorisation looks at the routing key too.
            Verdict::Refused(Refusal::AccessRefused { text })
                if text.contains("access to topic") =>
            {
                self.spread(&verdict, |message| {
                    message.exchange == guilty.exchange && message.routing_key == guilty.routing_key
                });
            }
            Verdict::Refused(Refusal::AccessRefused { .. }) => {
                self.refuse_exchange(&guilty.exchange, &verdict)
            }
            Verdict::Poison(Poison::TooLarge { .. }) => {
                self.spread(&verdict, |message| message.payload.len() >= guilty.payload.len());
            }
            Verdict::Confirmed | Verdict::Refused(_) | Verdict::Poison(_) => {}
        }
        self.verdicts[offender] = Some(verdict);
    }

    fn spread(&mut self, verdict: &Verdict, alike: impl Fn(&Message) -> bool) {
        for (message, slot) in self.messages.iter().zip(&mut self.verdicts) {
            if slot.is_none() && alike(message) {
                *slot = Some(verdict.clone());
            }
        }
    }
}
