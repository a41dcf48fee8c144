use super::{Label, Verdict};
use crate::{Context, Failure};

/// What an event did to an entity.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an event that is early or for review was not applied: return `answer` from the handler"]
#[non_exhaustive]
pub struct Decided<S, E> {
    /// The machine's name.
    pub machine: &'static str,
    /// The entity.
    pub entity: String,
    /// The event.
    pub event: E,
    /// The state it met; `None` where an entity of yours was not there.
    pub from: Option<S>,
    /// What it meant there.
    pub verdict: Verdict<S>,
}

impl<S: Label, E: Label> Decided<S, E> {
    /// Whether the entity moved: then do what goes with it, in the same transaction.
    #[must_use]
    pub const fn moved(&self) -> bool {
        matches!(self.verdict, Verdict::To(_))
    }

    /// The state the entity is in now; `None` where an entity of yours was not there.
    #[must_use]
    pub const fn state(&self) -> Option<S> {
        match self.verdict {
            Verdict::To(next) => Some(next),
            Verdict::Duplicate | Verdict::Stale | Verdict::Early | Verdict::Review => self.from,
        }
    }

    /// What a handler returns: the name of the state the entity is in now, which is kept as the
    /// operation's result. A stale event is marked as such ([`Context::mark_stale`]).
    ///
    /// # Errors
    /// [`Failure::Early`] and [`Failure::Review`] for those verdicts. The transaction is rolled back,
    /// and the parked message is what is left of it.
    pub fn answer(&self, context: &Context<'_>) -> Result<&'static str, Failure> {
        match self.verdict {
            Verdict::To(_) | Verdict::Duplicate => {}
            Verdict::Stale => context.mark_stale(),
            Verdict::Early => return Err(Failure::early(self.reason("came before its time"))),
            Verdict::Review => return Err(Failure::review(self.reason("makes no sense"))),
        }
        // Only an early event can have met nothing.
        Ok(self.state().map_or("", Label::name))
    }

    fn reason(&self, why: &str) -> String {
        let (machine, entity, event) = (self.machine, &self.entity, self.event.name());
        match self.from {
            Some(state) => {
                format!("{machine} {entity}: {event} {why} in state {}", state.name())
            }
            None => format!("{machine} {entity}: {event} {why}, there is none yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use message::{Fingerprint, Headers, OperationKey};

    use super::*;
    use crate::incoming::Incoming;
    use crate::stale::Stale;
    use crate::transition::labels;
    use crate::{Consumer, transition::Cause};

    labels! {
        enum State { Open = "open", Closed = "closed" }
        enum Event { Close = "close" }
    }

    fn decided(from: Option<State>, verdict: Verdict<State>) -> Decided<State, Event> {
        Decided { machine: "door", entity: "d1".to_owned(), event: Event::Close, from, verdict }
    }

    /// Runs `check` with a context, and says whether it was marked stale.
    fn with_context<T>(check: impl FnOnce(&Context<'_>) -> T) -> (T, bool) {
        let incoming = Incoming {
            message_id: Some("m\0".to_owned()),
            kind: None,
            exchange: String::new(),
            routing_key: String::new(),
            headers: Headers::new(),
            content_type: None,
            payload: bytes::Bytes::new(),
            timestamp: None,
            redelivered: false,
            named_operation: None,
        };
        let stale = Stale::default();
        // Nobody asks for effects here; there has to be a ledger of them all the same.
        let file = std::env::temp_dir().join(format!("decided-{}.db", uuid::Uuid::now_v7()));
        let url = file.display().to_string();
        let db = db::Db::<diesel::SqliteConnection>::open(&url, db::Settings::default());
        let db = db.expect("opens");
        let context = Context {
            consumer: Consumer("porter"),
            incoming: &incoming,
            operation: &OperationKey::new("s", "o").expect("valid"),
            fingerprint: &Fingerprint::of_bytes(b""),
            attempt: 1,
            stale: &stale,
            generation: 1,
            effects: &std::sync::Arc::new(crate::effect::Shared::new(
                db,
                "porter",
                Default::default(),
            )),
        };
        let checked = (check(&context), stale.get());
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{url}{end}"));
        }
        checked
    }

    #[test]
    fn each_verdict_has_its_answer() {
        let answer = |from, verdict| {
            let (answer, stale) = with_context(|context| decided(from, verdict).answer(context));
            let answer = answer.map_err(|failure| match failure {
                Failure::Early { reason } => ("early", reason),
                Failure::Review { reason } => ("review", reason),
                other => ("other", other.to_string()),
            });
            (answer, stale)
        };
        let (open, closed) = (Some(State::Open), Some(State::Closed));
        assert_eq!(answer(open, Verdict::To(State::Closed)), (Ok("closed"), false));
        assert_eq!(answer(closed, Verdict::Duplicate), (Ok("closed"), false));
        assert_eq!(answer(closed, Verdict::Stale), (Ok("closed"), true));
        let early = "door d1: close came before its time in state open".to_owned();
        assert_eq!(answer(open, Verdict::Early), (Err(("early", early)), false));
        let absent = "door d1: close came before its time, there is none yet".to_owned();
        assert_eq!(answer(None, Verdict::Early), (Err(("early", absent)), false));
        let review = "door d1: close makes no sense in state closed".to_owned();
        assert_eq!(answer(closed, Verdict::Review), (Err(("review", review)), false));
    }

    #[test]
    fn a_context_is_a_cause_in_a_form_that_can_be_stored() {
        let operation = OperationKey::new("s", "o").expect("valid");
        let expected = Cause::unknown()
            .consumer(Consumer("porter"))
            .operation(&operation)
            .message_id("m\u{2400}");
        assert!(with_context(|context| Cause::from(context) == expected).0);
    }
}
