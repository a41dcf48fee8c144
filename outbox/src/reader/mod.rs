//! The other end of the log: read what is committed, once, in order, without waiting for anybody.
//!
//! # The problem
//!
//! Rows get their `seq` when they are inserted and become visible when their transaction commits.
//! Paging by `seq > last` therefore skips every row whose transaction commits after a later `seq`
//! was read: in one experiment 77 % of all rows. Waiting until no older transaction is open
//! (`xid < xmin`) loses nothing but stops behind any open writer of the whole cluster, and ordering
//! by `xid` breaks the order of one key's messages, since a transaction can take its xid long
//! before it writes.
//!
//! # The cursor
//!
//! A [`Position`] is a pair (C, S), a sequence number and a snapshot, with the invariant
//!
//! > every row with `seq <= C` that is visible in S has been handed on, and no other row has.
//!
//! One step is one statement, so that its rows and its snapshot N agree. It returns
//!
//! * **late**: rows with `seq <= C` that are visible in N and not in S. Not visible in S means that
//!   their transaction was in progress in S (its xid is listed in S) or began later (its xid is at
//!   least S's xmax): two ranges of the index on `(xid, seq)`. Transactions still in progress in N
//!   are taken out of the first list, so a writer that stays open costs nothing.
//! * **fresh**: the next rows with `seq > C` that are visible in N, in order of `seq`.
//!
//! Afterwards C is the greatest seq read and S is N. *Nothing is lost*: a row is visible in N or
//! not. If not, it is not visible in the new S either, and a later step finds it, as late or as fresh.
//! If it is, then with `seq <= C` it was visible in S, hence handed on before, or is late, hence handed
//! on now; and with `seq > C` it is in fresh, or beyond the greatest seq read and thus above the new
//! C. *Nothing is handed on twice*: late excludes what was visible in S, fresh what was below C.
//!
//! When fresh ended before its limit, all visible rows have been read and C may be any number from
//! there on; it becomes the last value the sequence has given out. Rows of transactions that are
//! still open then lie below C and are found through the index on xid, instead of being stepped
//! over as invisible on each step.
//!
//! # Order per key
//!
//! Let transaction T2 write a message of a key after T1, which wrote one, committed (business
//! transactions lock the aggregate; `serialized()` locks the key). Then T1's row has the smaller
//! seq, and every snapshot that sees T2 sees T1. So when a step returns T2's row, T1's is visible in
//! N as well: it was handed on before, or it is in the same step and sorts first, or, if T2's is
//! fresh, T1's cannot be beyond the limit, having the smaller seq.
//!
//! # A large late transaction
//!
//! Late rows are limited as well. When there are more, the position remembers N and the last seq
//! handed on (`late`), S stays, and the following steps page on by `seq` through the rows with
//! `seq <= C` that are visible in N and not in S; nothing fresh is read meanwhile, which keeps order
//! per key as above. When they end, the position becomes (C, N). Memory is bounded by one step's limit
//! in rows and bytes, whatever one transaction wrote.
//!
//! # Filters
//!
//! A cursor's filter does not enter into any of this: rows it keeps back are read, counted against the
//! limit of rows and passed, only without their payload. A statement that looked for matching rows
//! alone could walk the whole log for one of them.
//!
//! # Another cluster
//!
//! Transaction numbers mean nothing in another cluster. The cursor carries the system identifier it
//! was moved under, and a claim refuses another one, a snapshot ahead of the cluster, and a log with
//! rows of transactions the cluster has not begun. A standby that was promoted has the same identifier and
//! a higher timeline: every write of a holder names the timeline of its claim, so a holder whose
//! connections have moved to the new primary finds its lease lost there, and claims anew from what
//! the new primary has.
//!
//! # SQLite
//!
//! One writer at a time: seq order is commit order, and C alone is the position.

mod backends;
mod entry;
mod filter;
mod hold;
mod lease;
mod log;
mod position;
mod wake;

pub use entry::{Chunk, Entry, ReadLimit};
pub use filter::Filter;
#[cfg(feature = "sqlite")]
pub(crate) use hold::Stored;
pub use hold::{Due, Held, Hold, HoldReason, HoldResult};
pub use lease::{Advance, Claim, Foreign, Lease, Settled};
pub use log::LogStore;
pub use position::{Late, Position};
pub use wake::WakeStore;
