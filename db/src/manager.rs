use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use diesel::ConnectionError;
use diesel::r2d2::{self, ManageConnection, PooledConnection};

use crate::opening::Opening;
use crate::{Backend, Settings};

/// Opens guarded connections and remembers which of them died.
///
/// diesel's own manager sees a broken transaction but not a connection that was lost between
/// transactions; such a one would go back to the pool and fail every later caller.
pub(crate) struct Manager<C> {
    address: String,
    settings: Arc<Settings>,
    opening: Opening,
    connection: std::marker::PhantomData<fn() -> C>,
}

impl<C> Manager<C> {
    pub(crate) fn new(address: String, settings: Arc<Settings>, opening: Opening) -> Self {
        Self { address, settings, opening, connection: std::marker::PhantomData }
    }
}

pub(crate) struct Held<C> {
    conn: C,
    dead: bool,
}

impl<C: Backend> ManageConnection for Manager<C> {
    type Connection = Held<C>;
    type Error = r2d2::Error;

    fn connect(&self) -> Result<Held<C>, r2d2::Error> {
        let Some(_under_way) = self.opening.begin() else {
            let reason = "the pool has ended".to_owned();
            return Err(r2d2::Error::ConnectionError(ConnectionError::BadConnection(reason)));
        };
        let mut conn = C::establish(&self.address).map_err(r2d2::Error::ConnectionError)?;
        conn.prepare(&self.settings).map_err(r2d2::Error::QueryError)?;
        Ok(Held { conn, dead: false })
    }

    fn is_valid(&self, held: &mut Held<C>) -> Result<(), r2d2::Error> {
        held.conn.ping().map_err(r2d2::Error::QueryError)
    }

    fn has_broken(&self, held: &mut Held<C>) -> bool {
        std::thread::panicking() || held.dead || held.conn.is_broken()
    }
}

/// r2d2's own handler logs each failed attempt; the caller of `get` learns of it anyway.
#[derive(Debug)]
pub(crate) struct Quiet;

impl r2d2::HandleError<r2d2::Error> for Quiet {
    fn handle_error(&self, _: r2d2::Error) {}
}

/// A connection on loan from the pool.
pub struct Pooled<C: Backend>(PooledConnection<Manager<C>>);

impl<C: Backend> Pooled<C> {
    pub(crate) fn new(conn: PooledConnection<Manager<C>>) -> Self {
        Self(conn)
    }

    /// To be called after a failure: a connection that no longer answers leaves the pool.
    pub fn drop_if_dead(&mut self) {
        let held = &mut *self.0;
        held.dead = held.dead || held.conn.ping().is_err();
    }
}

impl<C: Backend> Deref for Pooled<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.0.conn
    }
}

impl<C: Backend> DerefMut for Pooled<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.0.conn
    }
}
