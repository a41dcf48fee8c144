use std::time::Duration;

use message::Fingerprint;

use super::call::Outcome;
use super::intent::{Begun, Intent, Ticket, lease};
use super::{Answer, Policy, ProviderKey, Settings, State};
use crate::store::micros;

/// An effect's row, locked; what is changed here is written back in the same transaction. Times are microseconds
/// from now, by the database's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub(crate) id: i64,
    pub(crate) consumer: String,
    pub(crate) scope: String,
    pub(crate) operation: String,
    pub(crate) effect: String,
    pub(crate) key: ProviderKey,
    /// `None` where it was called off before anybody asked for it.
    pub(crate) fingerprint: Option<Fingerprint>,
    pub(crate) policy: Policy,
    pub(crate) state: State,
    pub(crate) attempts: i32,
    pub(crate) epoch: i64,
    pub(crate) owner: String,
    /// Until nobody can be calling any more.
    pub(crate) lease: Option<i64>,
    pub(crate) asks: i32,
    pub(crate) ask_in: Option<i64>,
    pub(crate) result: Option<String>,
    pub(crate) error: String,
    /// An attempt's outcome is not known. A repeated call does not end that, its answer does.
    pub(crate) doubt: bool,
    pub(crate) review: bool,
    /// What an attempt reported after a later one had begun.
    pub(crate) late: bool,
    pub(crate) late_result: Option<String>,
    /// A person has decided about it.
    pub(crate) decided: bool,
    /// How long ago the first call was made of those whose outcome is not known, or the last one.
    pub(crate) age: Option<i64>,
}

impl Held {
    pub(crate) const fn ticket(&self) -> Ticket {
        Ticket { id: self.id, epoch: self.epoch, key: self.key, fingerprint: self.fingerprint }
    }

    /// Somebody wants it performed.
    pub(crate) fn begin(&mut self, intent: &Intent, settings: &Settings) -> Begun {
        // What was certainly not performed binds nobody to what it was.
        if self.state != State::Intended
            && self.fingerprint.is_some_and(|known| known != intent.fingerprint)
        {
            return Begun::Conflict;
        }
        match self.state {
            State::Done => Begun::Done(self.result.clone()),
            State::Failed => Begun::Refused(self.error.clone()),
            State::Intended => self.attempt(intent, settings),
            State::Attempted => match self.lease {
                Some(left) if left > 0 => Begun::UnderWay(span(left)),
                _ => {
                    self.lapse_as(intent.policy);
                    self.begin_unknown(intent, settings)
                }
            },
            State::Unknown => self.begin_unknown(intent, settings),
        }
    }

    fn begin_unknown(&mut self, intent: &Intent, settings: &Settings) -> Begun {
        // Also a policy that is more generous since then does not overrule that a person was called.
        match (self.state, self.review, intent.policy) {
            // A late answer was waiting for this.
            (State::Done, ..) => Begun::Done(self.result.clone()),
            (_, true, _) => Begun::Review,
            // Nor does anybody know for how much longer the provider keeps its key, once the time is over; whether
            // somebody has looked after it meanwhile or not.
            (_, false, Policy::RepeatSafe)
                if self.age.is_none_or(|age| age < micros(settings.unknown_for)) =>
            {
                self.attempt(intent, settings)
            }
            (_, false, Policy::RepeatSafe | Policy::Review) => {
                self.call_a_person();
                Begun::Review
            }
            (_, false, Policy::Ask) => {
                self.policy = Policy::Ask;
                // Until now it was declared safe to repeat, and what was sent may be on its way still.
                let left = self.ask_in.unwrap_or_else(|| micros(settings.grace));
                if left > 0 || !intent.asks {
                    // For whoever does ask.
                    self.ask_in = Some(left);
                    return Begun::Waits(span(left));
                }
                self.take_ask(settings);
                Begun::Ask(self.ticket())
            }
        }
    }

    fn attempt(&mut self, intent: &Intent, settings: &Settings) -> Begun {
        self.state = State::Attempted;
        self.fingerprint = Some(intent.fingerprint);
        self.policy = intent.policy;
        self.attempts = self.attempts.saturating_add(1);
        self.epoch += 1;
        self.owner.clone_from(&intent.owner);
        self.lease = Some(lease(intent, settings));
        (self.asks, self.ask_in) = (0, None);
        Begun::Call(self.ticket())
    }

    /// Nobody else asks for as long as this question can take.
    pub(crate) fn take_ask(&mut self, settings: &Settings) {
        self.asks = self.asks.saturating_add(1);
        self.ask_in = Some(micros(settings.ask_deadline.saturating_add(settings.grace)));
    }

    /// Its process has died, or is taken for dead.
    pub(crate) fn lapse(&mut self) {
        self.lapse_as(self.policy);
    }

    fn lapse_as(&mut self, policy: Policy) {
        self.policy = policy;
        // The lease has outlasted the deadline by the grace: the provider can be asked now.
        self.become_unknown("its process died, or gave it up, before it knew", 0);
    }

    /// The attempt with this ticket has ended; whether it is the newest.
    pub(crate) fn settle(&mut self, ticket: Ticket, outcome: Outcome, settings: &Settings) -> bool {
        let newest = self.epoch == ticket.epoch;
        // It has reported before, and the answer to that COMMIT was lost; or the provider was asked about it.
        if newest && self.state == State::Done && matches!(outcome, Outcome::Done(_)) {
            return true;
        }
        if !newest || !matches!(self.state, State::Attempted | State::Unknown) {
            self.report_late(ticket, outcome);
            return false;
        }
        // Of one that was taken for dead it is not known whether the doubt is its own; of an only one it is.
        let of_earlier = self.doubt && (self.state == State::Attempted || self.epoch > 1);
        match outcome {
            Outcome::Done(result) => {
                self.fingerprint = ticket.fingerprint;
                self.finish(result);
            }
            // To be asked twice can itself be refused, while the earlier attempt is still at work. And what did
            // nothing says nothing about an earlier attempt that may have.
            Outcome::Refused(reason) | Outcome::NotDone(reason) if of_earlier => {
                self.become_unknown(&reason, micros(settings.grace));
            }
            Outcome::Refused(reason) => self.refuse(reason),
            Outcome::NotDone(reason) => self.put_back(&reason),
            Outcome::Unknown(reason) => self.become_unknown(&reason, micros(settings.grace)),
        }
        true
    }

    /// The word of an attempt that has been followed by another one or by a decision. That it was performed is worth
    /// knowing whoever says it, and ends what is open; everything else says nothing about the others.
    fn report_late(&mut self, ticket: Ticket, outcome: Outcome) {
        let Outcome::Done(result) = outcome else { return };
        self.late = true;
        self.late_result.clone_from(&result);
        match self.state {
            State::Intended | State::Unknown => {
                self.fingerprint = ticket.fingerprint;
                self.finish(result);
            }
            // What was performed is what it asked for; should the call under way be, it says so itself.
            State::Attempted => self.fingerprint = ticket.fingerprint,
            State::Done | State::Failed => {}
        }
    }

    /// The provider has answered a question; whether it still mattered.
    pub(crate) fn answered(
        &mut self,
        ticket: Ticket,
        answer: Answer<Option<String>>,
        settings: &Settings,
    ) -> bool {
        // Of two who asked one can have been told that it was not done yet.
        let heard = self.state == State::Unknown
            || (self.state == State::Intended && matches!(answer, Answer::Done(_)));
        if self.epoch != ticket.epoch || !heard {
            return false;
        }
        match answer {
            Answer::Done(result) => self.finish(result),
            Answer::NotDone => self.put_back("the provider says that it was not done"),
            // A person is asked already.
            Answer::StillUnknown if self.review => {}
            Answer::StillUnknown if self.asks.unsigned_abs() >= settings.asks => {
                self.call_a_person()
            }
            Answer::StillUnknown => {
                let pause = settings.ask_backoff().pause(self.asks.unsigned_abs());
                self.ask_in = Some(micros(pause));
            }
        }
        true
    }

    /// Certainly performed.
    pub(crate) fn finish(&mut self, result: Option<String>) {
        self.close(State::Done);
        self.result = result;
        self.error.clear();
    }

    /// Certainly not performed, and not to be; unless somebody knows better: "no" to who asks again for what was done.
    pub(crate) fn refuse(&mut self, reason: String) {
        if self.late {
            return self.finish(self.late_result.clone());
        }
        self.close(State::Failed);
        self.error = reason;
    }

    /// Certainly not performed, and to be tried again; unless somebody knows better.
    pub(crate) fn put_back(&mut self, reason: &str) {
        if self.late {
            return self.finish(self.late_result.clone());
        }
        self.close(State::Intended);
        reason.clone_into(&mut self.error);
    }

    fn close(&mut self, state: State) {
        self.state = state;
        (self.lease, self.ask_in) = (None, None);
        (self.doubt, self.review) = (false, false);
    }

    fn become_unknown(&mut self, reason: &str, ask_in: i64) {
        if self.late {
            return self.finish(self.late_result.clone());
        }
        reason.clone_into(&mut self.error);
        // Taken for dead before: everything is arranged, and a person may have been called.
        if self.state == State::Unknown {
            return;
        }
        self.state = State::Unknown;
        self.doubt = true;
        self.lease = None;
        (self.asks, self.ask_in) = (0, None);
        match self.policy {
            Policy::RepeatSafe => {}
            Policy::Ask => self.ask_in = Some(ask_in),
            Policy::Review => self.call_a_person(),
        }
    }

    /// A person decides.
    pub(crate) fn call_a_person(&mut self) {
        self.review = true;
        self.ask_in = None;
    }
}

pub(crate) fn span(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(state: State, policy: Policy, lease: i64, review: bool) -> Held {
        let unknown = state == State::Unknown;
        Held {
            id: 1,
            consumer: "c".into(),
            scope: "s".into(),
            operation: "o".into(),
            effect: "e".into(),
            key: ProviderKey::from_stored("cb4f1863-da04-565e-879d-86807cbe2c7e").expect("a key"),
            fingerprint: Some(Fingerprint::of_bytes(b"")),
            policy,
            state,
            attempts: 1,
            epoch: 1,
            owner: String::new(),
            lease: (state == State::Attempted).then_some(lease),
            asks: 0,
            ask_in: (unknown && policy == Policy::Ask && !review).then_some(0),
            result: None,
            error: String::new(),
            doubt: unknown,
            review: unknown && review,
            late: false,
            late_result: None,
            decided: false,
            age: Some(0),
        }
    }

    /// Every row and every demand: a call is made only where nothing can have been performed, or where repeating it
    /// was declared safe and nobody can be calling.
    #[test]
    fn nothing_is_called_blindly() {
        let (each, policies) = ([false, true], Policy::ALL);
        for (state, stored) in State::ALL.into_iter().flat_map(|s| policies.map(|p| (s, p))) {
            for (declared, review) in policies.into_iter().flat_map(|p| each.map(|r| (p, r))) {
                for (lease, asks) in [1, 0].into_iter().flat_map(|l| each.map(|a| (l, a))) {
                    let mut row = held(state, stored, lease, review);
                    let (fingerprint, deadline) = (Fingerprint::of_bytes(b""), Duration::ZERO);
                    let (effect, owner) = ("e".to_owned(), String::new());
                    let intent =
                        Intent { effect, fingerprint, policy: declared, asks, deadline, owner };
                    let before = row.clone();
                    let begun = row.begin(&intent, &Settings::default());
                    let may = match state {
                        State::Intended => true,
                        State::Attempted => lease <= 0 && declared == Policy::RepeatSafe,
                        State::Unknown => !review && declared == Policy::RepeatSafe,
                        State::Done | State::Failed => false,
                    };
                    let calls = matches!(begun, Begun::Call(_));
                    assert_eq!(calls, may, "{before:?} {declared} {begun:?}");
                    assert_eq!(calls, row.epoch > before.epoch, "each call has a fence of its own");
                }
            }
        }
    }
}
