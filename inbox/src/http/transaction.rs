use std::fmt;

use db::{Class, classify};
use diesel::result::{DatabaseErrorKind, Error};

use super::Failed;
use super::backend::{HttpBackend, HttpConnection};
use super::front::Shared;
use super::identity::Identity;
use super::policy::Keep;
use super::reply::Reply;
use super::stored::{self, Kept};
use crate::InboxBackend;
use crate::error::class_in;
use crate::store::micros;
use crate::store::request::{Found, Known};

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What a committed transaction has found or done.
#[derive(Debug)]
pub(crate) enum Done {
    First(Reply),
    Unkeyed(Reply),
    Replay(Reply),
    NotKept,
    Mismatch,
    Held,
}

/// Why nothing is known to be committed.
#[derive(Debug)]
pub(crate) enum Undone {
    /// The handler answered, and nothing is to be kept.
    Refused(Box<Reply>),
    /// The handler failed.
    Handler(Cause),
    /// The handler panicked.
    Panicked,
    /// The reply could not be written for storing.
    Unwritable(Cause),
    /// What is stored could not be read.
    Unreadable(Cause),
    /// Another request has committed under the key since the look at it.
    Late,
    /// The handler has swallowed an error that ended its transaction: what it wrote after that is permanent. Only on
    /// SQLite; PostgreSQL takes nothing more.
    Ended,
    /// BEGIN, or a statement on the key.
    Database(Error),
    /// COMMIT failed, and it cannot be told whether it took effect.
    Unknown(Error),
    /// COMMIT failed and everything is undone.
    Commit(Error),
}

impl From<Error> for Undone {
    fn from(error: Error) -> Self {
        match error {
            Error::NotInTransaction => Self::Ended,
            error => Self::Database(error),
        }
    }
}

impl From<Failed> for Undone {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Reply(reply) => Self::Refused(reply),
            Failed::Error(cause) => Self::Handler(cause),
        }
    }
}

impl fmt::Display for Undone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reply) => write!(f, "answered with {}", reply.status),
            Self::Panicked => f.write_str("the handler panicked"),
            Self::Late => f.write_str("another request was quicker"),
            Self::Ended => {
                f.write_str("the handler has swallowed an error that ended its transaction; look at what it wrote then")
            }
            Self::Handler(cause) => cause.fmt(f),
            Self::Unwritable(cause) => write!(f, "the reply cannot be stored: {cause}"),
            Self::Unreadable(cause) => write!(f, "the stored reply cannot be read: {cause}"),
            Self::Database(error) => error.fmt(f),
            Self::Unknown(error) | Self::Commit(error) => write!(f, "COMMIT failed: {error}"),
        }
    }
}

impl Undone {
    /// What the database wants, where it is the cause.
    pub(crate) fn class(&self) -> Option<Class> {
        match self {
            Self::Refused(_)
            | Self::Unwritable(_)
            | Self::Unreadable(_)
            | Self::Unknown(_)
            | Self::Panicked
            | Self::Ended
            | Self::Late => None,
            Self::Handler(cause) => class_in(&**cause),
            Self::Database(error) | Self::Commit(error) => Some(classify(error)),
        }
    }

    /// Whether another request's commit, which the look at the key missed, can be what has come of it.
    pub(crate) const fn may_be_outrun(&self) -> bool {
        match self {
            Self::Refused(_)
            | Self::Handler(_)
            | Self::Panicked
            | Self::Unwritable(_)
            | Self::Late
            | Self::Database(_)
            | Self::Commit(_) => true,
            // One was found, one may be this one's own, and one has nobody beside it.
            Self::Unreadable(_) | Self::Unknown(_) | Self::Ended => false,
        }
    }

    /// A COMMIT that failed.
    pub(crate) fn at_commit(error: Error) -> Self {
        if is_undone(&error) { Self::Commit(error) } else { Self::Unknown(error) }
    }
}

/// Whether the server itself has said that the transaction is no more. Anything else may have been lost
/// on the way back.
fn is_undone(error: &Error) -> bool {
    use DatabaseErrorKind::{
        CheckViolation, ExclusionViolation, ForeignKeyViolation, NotNullViolation,
        RestrictViolation, SerializationFailure, UniqueViolation,
    };
    match error {
        Error::RollbackErrorOnCommit { commit_error, .. } => is_undone(commit_error),
        Error::DatabaseError(kind, _) => {
            matches!(
                kind,
                CheckViolation
                    | ExclusionViolation
                    | ForeignKeyViolation
                    | NotNullViolation
                    | RestrictViolation
                    | SerializationFailure
                    | UniqueViolation
            ) || classify(error) == Class::Contention
        }
        _ => false,
    }
}

impl<C: HttpConnection> Shared<C> {
    /// One transaction: the claim, the handler and its reply, or what an earlier one left.
    pub(crate) fn transact(
        &self,
        conn: &mut C,
        identity: Option<&Identity>,
        work: impl Fn(&mut C) -> Result<Reply, Failed>,
    ) -> Result<Done, Undone> {
        let mut committing = false;
        let done = conn.write(|tx| {
            let done = match identity {
                Some(identity) => self.once(tx, identity, work),
                None => self.unkeyed(tx, work),
            };
            committing = done.is_ok();
            done
        });
        match done {
            // After the last statement only COMMIT can have failed.
            Err(Undone::Database(error)) if committing => Err(Undone::at_commit(error)),
            done => done,
        }
    }

    fn once(
        &self,
        tx: &mut C,
        identity: &Identity,
        work: impl Fn(&mut C) -> Result<Reply, Failed>,
    ) -> Result<Done, Undone> {
        match self.seek(tx, identity)? {
            Found::Free => {}
            Found::Held => return Ok(Done::Held),
            Found::Known(known) => return self.repeat(tx, identity, &known),
        }
        let reply = work(tx)?;
        if self.policy.keeps(reply.status) == Keep::Free {
            return Err(Undone::Refused(Box::new(reply)));
        }
        self.keep(tx, identity, &reply)?;
        Ok(Done::First(reply))
    }

    /// Without a key there is nothing to store, so it takes a statement of its own to find out that the
    /// handler has swallowed an error which dooms the transaction.
    fn unkeyed(
        &self,
        tx: &mut C,
        work: impl Fn(&mut C) -> Result<Reply, Failed>,
    ) -> Result<Done, Undone> {
        let reply = work(tx)?;
        if self.policy.keeps(reply.status) == Keep::Free {
            return Err(Undone::Refused(Box::new(reply)));
        }
        C::Backend::still_good(tx)?;
        Ok(Done::Unkeyed(reply))
    }

    fn look(&self, conn: &mut C, identity: &Identity) -> Result<Found, Undone> {
        let row = identity.row(&self.consumer);
        let (lock, window) = (identity.lock_under(self.lock), micros(self.policy.keep));
        Ok(C::Backend::look_unheld(conn, &row, lock, window)?)
    }

    /// What is known of the key. Not by the purge alone: the published window ends whether that has run or not.
    fn seek(&self, tx: &mut C, identity: &Identity) -> Result<Found, Undone> {
        let found = self.look(tx, identity)?;
        if matches!(&found, Found::Known(known) if known.expired) {
            // Who has the key's lock is the only one to replace it.
            let (row, window) = (identity.row(&self.consumer), micros(self.policy.keep));
            C::Backend::delete_expired(tx, row.consumer, row.operation, window)?;
            return Ok(Found::Free);
        }
        Ok(found)
    }

    /// What is known of the key, for whoever has not begun.
    pub(crate) fn earlier(
        &self,
        conn: &mut C,
        identity: &Identity,
    ) -> Result<Option<Done>, Undone> {
        match self.standing(conn, identity)? {
            Some(known) => self.repeat(conn, identity, &known).map(Some),
            None => Ok(None),
        }
    }

    fn standing(&self, conn: &mut C, identity: &Identity) -> Result<Option<Known>, Undone> {
        let row = identity.row(&self.consumer);
        let known = C::Backend::look_at(conn, &row, micros(self.policy.keep))?;
        Ok(known.filter(|known| !known.expired))
    }

    /// Whether an earlier request has left something under the key, for one that has failed: its own look may
    /// have been older than the commit that it ran into, and then that one's reply is the answer.
    pub(crate) fn is_known(&self, conn: &mut C, identity: &Identity) -> Result<bool, Undone> {
        Ok(self.standing(conn, identity)?.is_some())
    }

    fn repeat(&self, tx: &mut C, identity: &Identity, known: &Known) -> Result<Done, Undone> {
        if !known.same {
            // Counted on the row, where an operator looks for who reuses keys.
            C::Backend::count_repeat(tx, &identity.row(&self.consumer))?;
            return Ok(Done::Mismatch);
        }
        let kept =
            stored::read(known.reply.as_deref(), &identity.context(&self.consumer), &self.policy);
        match kept.map_err(Undone::Unreadable)? {
            Kept::Reply(reply) => Ok(Done::Replay(reply)),
            Kept::NotKept => Ok(Done::NotKept),
        }
    }

    /// Stores the reply. Also what finds out that the transaction is doomed: see [`Self::unkeyed`].
    fn keep(&self, tx: &mut C, identity: &Identity, reply: &Reply) -> Result<(), Undone> {
        let stored = stored::written(reply, &identity.context(&self.consumer), &self.policy)
            .map_err(Undone::Unwritable)?;
        match C::Backend::insert_applied(tx, &identity.row(&self.consumer), &stored)? {
            true => Ok(()),
            false => Err(Undone::Late),
        }
    }

    /// Keeps a failure's answer after its effects were undone; false where somebody was quicker.
    pub(crate) fn keep_failure(
        &self,
        conn: &mut C,
        identity: &Identity,
        reply: &Reply,
    ) -> Result<bool, Undone> {
        conn.write(|tx| match self.seek(tx, identity)? {
            Found::Free => self.keep(tx, identity, reply).map(|()| true),
            Found::Held | Found::Known(_) => Ok(false),
        })
    }
}
