use message::check_name;

use super::{Label, MachineError, Verdict};

/// What the events of a business entity mean in each of its states, declared once.
///
/// Cheap to clone, so that each handler can have its own.
#[derive(Clone, Debug)]
pub struct Machine<S, E> {
    pub(super) name: &'static str,
    pub(super) initial: S,
    pub(super) rules: Vec<(S, E, Verdict<S>)>,
    pub(super) otherwise: Verdict<S>,
}

impl<S: Label, E: Label> Machine<S, E> {
    /// A machine of a name, the state of an entity that has seen no event, and its rules.
    /// `otherwise` is the verdict where there is no rule: [`Verdict::Review`], unless one knows better.
    ///
    /// The name is stored for ever and is a metric label: 1 to 255 bytes, no control characters.
    ///
    /// # Errors
    /// [`MachineError`], naming the state or event at fault.
    pub fn new(
        name: &'static str,
        initial: S,
        rules: impl IntoIterator<Item = (S, E, Verdict<S>)>,
        otherwise: Verdict<S>,
    ) -> Result<Self, MachineError> {
        let machine = Self { name, initial, rules: rules.into_iter().collect(), otherwise };
        check_name("machine", name)?;
        check_labels::<S>("state")?;
        check_labels::<E>("event")?;
        machine.check_rules()?;
        machine.check_reach()?;
        Ok(machine)
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The state of an entity that has seen no event.
    #[must_use]
    pub const fn initial(&self) -> S {
        self.initial
    }

    /// What an event means in a state.
    #[must_use]
    pub fn verdict(&self, state: S, event: E) -> Verdict<S> {
        let rule = self.rules.iter().find(|(from, on, _)| *from == state && *on == event);
        rule.map_or(self.otherwise, |(_, _, verdict)| *verdict)
    }

    fn check_rules(&self) -> Result<(), MachineError> {
        known("state", self.initial)?;
        for (index, (state, event, verdict)) in self.rules.iter().enumerate() {
            known("state", *state)?;
            known("event", *event)?;
            if let Verdict::To(next) = verdict {
                known("state", *next)?;
            }
            if self.rules[..index].iter().any(|(from, on, _)| from == state && on == event) {
                return Err(MachineError::TwoRules { state: state.name(), event: event.name() });
            }
        }
        match self.otherwise {
            Verdict::To(state) => Err(MachineError::DefaultMoves { state: state.name() }),
            Verdict::Duplicate | Verdict::Stale | Verdict::Early | Verdict::Review => Ok(()),
        }
    }

    fn check_reach(&self) -> Result<(), MachineError> {
        let mut reached = vec![self.initial];
        let mut next = 0;
        while let Some(state) = reached.get(next).copied() {
            next += 1;
            for (from, _, verdict) in &self.rules {
                if let Verdict::To(to) = verdict
                    && *from == state
                    && !reached.contains(to)
                {
                    reached.push(*to);
                }
            }
        }
        let missed = S::ALL.iter().filter(|state| !reached.contains(state));
        let states: Vec<_> = missed.map(|state| state.name()).collect();
        if states.is_empty() { Ok(()) } else { Err(MachineError::Unreachable { states }) }
    }
}

fn check_labels<L: Label>(what: &'static str) -> Result<(), MachineError> {
    for (index, label) in L::ALL.iter().enumerate() {
        check_name(what, label.name())?;
        if L::ALL[..index].iter().any(|other| other.name() == label.name()) {
            return Err(MachineError::SameName { what, name: label.name() });
        }
    }
    Ok(())
}

fn known<L: Label>(what: &'static str, label: L) -> Result<(), MachineError> {
    if L::ALL.contains(&label) {
        return Ok(());
    }
    Err(MachineError::Unknown { what, name: label.name() })
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Duplicate, Early, Review, To};
    use super::*;
    use crate::transition::labels;

    labels! {
        enum State { A = "a", B = "b", C = "c" }
        enum Event { X = "x", Y = "y" }
    }
    use Event::{X, Y};
    use State::{A, B, C};

    /// Lists less than there is, and one name twice.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Careless {
        One,
        Same,
        Unlisted,
    }

    impl Label for Careless {
        const ALL: &'static [Self] = &[Self::One];

        fn name(self) -> &'static str {
            match self {
                Self::One | Self::Same => "one",
                Self::Unlisted => "unlisted",
            }
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Twins(bool);

    impl Label for Twins {
        const ALL: &'static [Self] = &[Self(false), Self(true)];

        fn name(self) -> &'static str {
            "twin"
        }
    }

    fn refused<S: Label, E: Label>(
        initial: S,
        rules: &[(S, E, Verdict<S>)],
        otherwise: Verdict<S>,
    ) -> MachineError {
        Machine::new("m", initial, rules.iter().copied(), otherwise).expect_err("must be refused")
    }

    #[test]
    fn a_rule_decides_and_the_rest_is_said_once() {
        let rules = [(A, X, To(B)), (B, X, Duplicate), (A, Y, Early), (B, Y, To(C))];
        let machine = Machine::new("m", A, rules, Review).expect("valid");
        for (state, event, verdict) in rules {
            assert_eq!(machine.verdict(state, event), verdict, "{state:?} {event:?}");
        }
        assert_eq!(machine.verdict(C, X), Review);
        assert_eq!((machine.name(), machine.initial()), ("m", A));
    }

    #[test]
    fn what_makes_no_sense_is_not_declared() {
        let all = [(A, X, To(B)), (B, X, To(C))];
        let twice = [all[0], all[1], (A, X, Duplicate)];
        assert_eq!(refused(A, &twice, Review), MachineError::TwoRules { state: "a", event: "x" });
        // C leads to itself and B to it, but nothing to B.
        let apart = [(B, X, To(C)), (C, X, To(C)), (A, X, To(A))];
        assert_eq!(
            refused(A, &apart, Review),
            MachineError::Unreachable { states: vec!["b", "c"] }
        );
        assert_eq!(refused(A, &all, To(A)), MachineError::DefaultMoves { state: "a" });
        let long: &'static str = Box::leak("m".repeat(256).into_boxed_str());
        for name in ["", "a\nb", long] {
            let refused = Machine::new(name, A, all, Review);
            assert!(matches!(refused, Err(MachineError::Invalid(_))), "{refused:?}");
        }
    }

    #[test]
    fn a_label_written_by_hand_is_checked() {
        let unknown = |what, name| MachineError::Unknown { what, name };
        let (one, same, unlisted) = (Careless::One, Careless::Same, Careless::Unlisted);
        assert_eq!(refused(unlisted, &[(one, X, To(one))], Review), unknown("state", "unlisted"));
        assert_eq!(refused(one, &[(same, X, To(one))], Review), unknown("state", "one"));
        assert_eq!(refused(one, &[(one, X, To(unlisted))], Review), unknown("state", "unlisted"));
        let unheard = [(A, unlisted, To(B)), (B, one, To(C))];
        assert_eq!(refused(A, &unheard, Review), unknown("event", "unlisted"));
        let twins = [(Twins(false), X, To(Twins(true)))];
        let same = MachineError::SameName { what: "state", name: "twin" };
        assert_eq!(refused(Twins(false), &twins, Review), same);
    }
}
