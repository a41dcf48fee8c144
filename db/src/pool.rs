use std::any::Any;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use diesel::r2d2::Pool;

use crate::abandoned::Abandoned;
use crate::address::redacted;
use crate::connect::connected;
use crate::manager::{Manager, Pooled, Quiet};
use crate::opening::LastOut;
use crate::{Backend, CallError, OpenError, Settings};

/// A pool of connections whose blocking work runs off the async threads. Clones share the pool.
///
/// Dropping the last clone waits up to a second for connections that are being opened at that moment: a process
/// that ends inside of them can crash. Let go of it before you end the process.
pub struct Db<C: Backend> {
    /// Before the pool: a thread that opens a connection for it must not be the one to drop it.
    last: Arc<LastOut>,
    /// Replaced when calls of it do not come back.
    current: Arc<RwLock<Current<C>>>,
    address: Arc<str>,
    full: Arc<str>,
    settings: Arc<Settings>,
}

struct Current<C: Backend> {
    pool: Pool<Manager<C>>,
    abandoned: Abandoned,
}

impl<C: Backend> Clone for Db<C> {
    fn clone(&self) -> Self {
        Self {
            last: self.last.clone(),
            current: self.current.clone(),
            address: self.address.clone(),
            full: self.full.clone(),
            settings: self.settings.clone(),
        }
    }
}

impl<C: Backend> std::fmt::Debug for Db<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("address", &self.address).finish_non_exhaustive()
    }
}

impl<C: Backend> Db<C> {
    /// Opens a pool after one connection was really made. Blocks; call it before the work starts or
    /// from a blocking thread.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(address: &str, settings: Settings) -> Result<Self, OpenError> {
        let full = C::address(address, &settings)?;
        let shown = redacted(address);
        let settings = Arc::new(settings);
        drop(connected::<C>(&full, address, &settings)?);
        let last = Arc::new(LastOut::default());
        let pool = Self::pool(&full, &settings, &last);
        let current = Arc::new(RwLock::new(Current { pool, abandoned: Abandoned::default() }));
        Ok(Self { last, current, address: shown.into(), full: full.into(), settings })
    }

    fn pool(full: &str, settings: &Arc<Settings>, last: &LastOut) -> Pool<Manager<C>> {
        Pool::builder()
            .max_size(settings.pool_size.max(1))
            .min_idle(Some(0))
            .connection_timeout(settings.acquire_timeout)
            // A ping before each use costs a round trip; a dead connection shows in the work's error
            // just as well, and is kept out of the pool from then on.
            .test_on_check_out(false)
            .error_handler(Box::new(Quiet))
            .build_unchecked(Manager::new(full.to_owned(), settings.clone(), last.0.clone()))
    }

    /// Opens a pool from async code.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn connect(address: &str, settings: Settings) -> Result<Self, OpenError> {
        let owned = address.to_owned();
        match tokio::task::spawn_blocking(move || Self::open(&owned, settings)).await {
            Ok(opened) => opened,
            Err(_) => Err(OpenError::Unreachable {
                address: redacted(address),
                reason: "the runtime is shutting down".to_owned(),
            }),
        }
    }

    /// The address without user and password.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How connections are opened and guarded.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A connection of its own beside the pool and its size, for what lives as long as a session. Blocks.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn separate(&self) -> Result<C, OpenError> {
        connected(&self.full, &self.full, &self.settings)
    }

    /// A connection for synchronous code. Blocks at most `acquire_timeout`. With
    /// [`transaction_pooler`](Settings::transaction_pooler) statements outside a transaction run without
    /// our time limits.
    ///
    /// # Errors
    /// [`CallError::PoolExhausted`].
    pub fn get<E>(&self) -> Result<Pooled<C>, CallError<E>> {
        let pool = self.current.read().unwrap_or_else(PoisonError::into_inner).pool.clone();
        pool.get().map(Pooled::new).map_err(|error| CallError::PoolExhausted {
            after: self.settings.acquire_timeout,
            reason: error.to_string(),
        })
    }

    /// Runs `work` with a connection on a thread that may block. Dropping the future does not stop
    /// the work; its transaction ends one way or the other.
    ///
    /// With [`transaction_pooler`](Settings::transaction_pooler) the work is one transaction, committed
    /// when it returns `Ok` and before this does, rolled back else. A transaction that the work begins is
    /// then a savepoint; a database error that it swallows outside of one ends in
    /// [`CallError::Commit`].
    ///
    /// # Errors
    /// The work's error, or why it could not be run.
    pub async fn call<T, E, F>(&self, work: F) -> Result<T, CallError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&mut C) -> Result<T, E> + Send + 'static,
    {
        let db = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut conn = db.get()?;
            C::unit(&mut conn, &db.settings, work).inspect_err(|_| conn.drop_if_dead())
        });
        match task.await {
            Ok(result) => result,
            // The unwinding thread returned the connection to the pool, which drops it: its open
            // transaction must not continue in other hands.
            Err(error) if error.is_panic() => {
                Err(CallError::Panicked { message: panic_text(&*error.into_panic()) })
            }
            Err(_) => Err(CallError::Cancelled),
        }
    }

    /// The same, waited for no longer than `limit`: a frozen session answers neither the server's time
    /// limits nor TCP's. What has not come back then has an unknown outcome, keeps its thread, and gives its
    /// connection up when it does; later calls have connections of their own. Work that has no connection by
    /// then, or when the future is dropped, is not begun any more.
    ///
    /// # Errors
    /// [`CallError::TimedOut`], else as for [`call`](Self::call).
    pub async fn call_within<T, E, F>(&self, limit: Duration, work: F) -> Result<T, CallError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnOnce(&mut C) -> Result<T, E> + Send + 'static,
    {
        let abandoned =
            self.current.read().unwrap_or_else(PoisonError::into_inner).abandoned.clone();
        let (waiting, running) = abandoned.call();
        let call = self.call(move |conn| {
            let running = running;
            // What it would do nobody would hear of: a message that it takes would be nobody's.
            if running.is_left() { Ok(None) } else { work(conn).map(Some) }
        });
        let result = match tokio::time::timeout(limit, call).await {
            Ok(Ok(Some(done))) => Ok(done),
            Ok(Err(error)) => Err(error),
            Ok(Ok(None)) | Err(_) => Err(CallError::TimedOut { after: limit }),
        };
        drop(waiting);
        // Also where no connection came free because calls that somebody stopped waiting for have them.
        // Not because others of the same pool do their work: its size is a promise.
        if abandoned.any()
            && matches!(result, Err(CallError::TimedOut { .. } | CallError::PoolExhausted { .. }))
        {
            self.renew(&abandoned);
        }
        result
    }

    /// Leaves the hung connections their places in the old pool, and it its own life.
    fn renew(&self, abandoned: &Abandoned) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        // Of several calls that find the pool hung one replaces it.
        if current.abandoned.is(abandoned) {
            let pool = Self::pool(&self.full, &self.settings, &self.last);
            *current = Current { pool, abandoned: Abandoned::default() };
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no text".to_owned())
}
