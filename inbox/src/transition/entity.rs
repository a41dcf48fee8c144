use std::fmt;

use diesel::connection::LoadConnection;

use super::{Label, TransitionBackend, TransitionError};
use crate::backend::InboxBackend;
use crate::store::Move;

/// An entity whose state is kept in a table of yours, for
/// [`Machine::apply_to`](super::Machine::apply_to). [`entity`] makes one of two closures.
pub trait Entity<C, S> {
    /// What it is called in the history: 1 to 255 bytes, no control characters. Unique within the
    /// machine.
    fn id(&self) -> &str;

    /// Its state; `None` where it is not there (yet).
    ///
    /// # Errors
    /// [`TransitionError`]; diesel's errors and [`UnknownLabel`](super::UnknownLabel) become one
    /// through `?`.
    fn load(&mut self, tx: &mut C) -> Result<Option<S>, TransitionError>;

    /// Moves it from `from` to `to` in **one** statement that checks `from`, for example
    /// `UPDATE orders SET status = $to WHERE id = $id AND status = $from`; true where that changed a
    /// row. Two transactions that move one entity then wait for each other, and the second finds
    /// nothing to change: it reads the state again and judges anew.
    ///
    /// # Errors
    /// [`TransitionError`].
    fn compare_and_set(&mut self, tx: &mut C, from: S, to: S) -> Result<bool, TransitionError>;
}

/// An [`Entity`] of its name and its two statements; see there for what they must do.
pub fn entity<C, S>(
    id: impl Into<String>,
    load: impl FnMut(&mut C) -> Result<Option<S>, TransitionError>,
    compare_and_set: impl FnMut(&mut C, S, S) -> Result<bool, TransitionError>,
) -> impl Entity<C, S> {
    Statements { id: id.into(), load, compare_and_set }
}

struct Statements<L, M> {
    id: String,
    load: L,
    compare_and_set: M,
}

impl<C, S, L, M> Entity<C, S> for Statements<L, M>
where
    L: FnMut(&mut C) -> Result<Option<S>, TransitionError>,
    M: FnMut(&mut C, S, S) -> Result<bool, TransitionError>,
{
    fn id(&self) -> &str {
        &self.id
    }

    fn load(&mut self, tx: &mut C) -> Result<Option<S>, TransitionError> {
        (self.load)(tx)
    }

    fn compare_and_set(&mut self, tx: &mut C, from: S, to: S) -> Result<bool, TransitionError> {
        (self.compare_and_set)(tx, from, to)
    }
}

/// An entity whose state is kept here.
pub(super) struct Kept<'a, S> {
    pub(super) machine: &'static str,
    pub(super) id: &'a str,
    pub(super) initial: S,
    /// Its moves as far as known; 0 where it has no row.
    pub(super) version: i64,
}

impl<C, S> Entity<C, S> for Kept<'_, S>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
    S: Label,
{
    fn id(&self) -> &str {
        self.id
    }

    fn load(&mut self, tx: &mut C) -> Result<Option<S>, TransitionError> {
        let found = C::Backend::standing(tx, self.machine, self.id)?;
        self.version = found.as_ref().map_or(0, |standing| standing.version);
        Ok(Some(match found {
            Some(standing) => S::named(&standing.state)?,
            None => self.initial,
        }))
    }

    fn compare_and_set(&mut self, tx: &mut C, from: S, to: S) -> Result<bool, TransitionError> {
        let step = Move {
            machine: self.machine,
            entity: self.id,
            from: from.name(),
            to: to.name(),
            version: self.version,
        };
        let moved = if self.version == 0 {
            C::Backend::first_move(tx, &step)?
        } else {
            C::Backend::next_move(tx, &step)?
        };
        if moved {
            self.version += 1;
        }
        Ok(moved)
    }
}

impl<L, M> fmt::Debug for Statements<L, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statements").field("id", &self.id).finish_non_exhaustive()
    }
}
