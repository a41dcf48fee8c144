use super::{AdminError, Order};
use crate::builder::InboxConnection;
use crate::effect::held::Held;
use crate::effect::{EffectBackend, State, change, wake};

/// What a person has found out about an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It was performed, with this result as JSON; `None` stands for null. Whoever wants it gets that as if the
    /// provider had said so: it must be readable as what the call brings.
    Done(Option<String>),
    /// It was certainly not performed, and no request of it is under way any more: the next attempt calls again.
    NotDone,
    /// It was not performed, and never shall be. Whoever wants it is refused with the reason of the order.
    Failed,
}

impl Decision {
    /// As recorded.
    const fn action(&self) -> &'static str {
        match self {
            Self::Done(_) => "effect.done",
            Self::NotDone => "effect.not_done",
            Self::Failed => "effect.failed",
        }
    }
}

/// Decides about an effect: one that is unknown, whether a person was called or not; one whose call has outlasted
/// its lease; and one that was refused, if the refusal was a mistake. The result of one that is done can be replaced
/// where a person has given it, or there is none. The state that it was in.
///
/// # Errors
/// [`AdminError`]. One that the provider said is done, or that is not begun, is not open; one whose call may be under
/// way is left to it.
pub fn decide<C: InboxConnection>(
    conn: &mut C,
    id: i64,
    decision: &Decision,
    order: &Order,
) -> Result<State, AdminError> {
    order.check()?;
    if let Decision::Done(Some(json)) = decision
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(json)
    {
        return Err(AdminError::Unusable {
            field: "result",
            value: json.clone(),
            reason: format!("it is no JSON: {error}"),
        });
    }
    conn.write(|tx| {
        let held = C::Backend::lock_effect_by(tx, id)?.ok_or(AdminError::UnknownEffect { id })?;
        let was = held.state;
        let open = match was {
            State::Unknown | State::Failed => true,
            State::Attempted => held.lease.is_none_or(|left| left <= 0),
            // What a person has said can be corrected, and a result that could not be written supplied.
            State::Done => {
                matches!(decision, Decision::Done(_)) && (held.decided || held.result.is_none())
            }
            State::Intended => false,
        };
        if !open {
            return Err(AdminError::EffectNotOpen { id, state: was });
        }
        if order.dry_run {
            return Ok(was);
        }
        // First: it records what the change takes away.
        C::Backend::record_effect(tx, id, decision.action(), &order.actor, &order.reason)?;
        let held = change::<C, _>(tx, held, |held| {
            held.decide(decision, &order.reason);
            held.clone()
        })?;
        wake::<C>(tx, &held)?;
        Ok(was)
    })
}

impl Held {
    /// A call that is still under way in spite of its lease reports late, and changes nothing that was decided.
    fn decide(&mut self, decision: &Decision, reason: &str) {
        self.epoch += 1;
        match decision {
            Decision::Done(result) => self.finish(result.clone()),
            // What came late before is known to whoever decides, and overruled.
            Decision::Failed => {
                (self.late, self.late_result) = (false, None);
                self.refuse(reason.to_owned());
            }
            Decision::NotDone => {
                (self.late, self.late_result) = (false, None);
                self.put_back("a person says that it was not done");
            }
        }
    }
}
