//! What the benches share: a database and a queue of their own, the `relay` program as a process, and
//! figures by name.

mod bare;
mod direct;
mod drain;
mod figures;
mod fixture;
mod gate;
mod open_transactions;
mod payments;
mod producers;
mod program;
mod statements;
mod timed;

pub use bare::{book_in_batches, consume_bare};
pub use direct::{Direct, Ready};
pub use drain::Drain;
pub use figures::Figures;
pub use fixture::{Fixture, PAYLOAD_BYTES};
pub use gate::Gate;
pub use open_transactions::OpenTransactions;
pub use payments::{Paid, Payments};
pub use producers::{Committed, Producers, messages};
pub use program::{Memory, Program, Variable};
pub use statements::Statements;
pub use timed::{Confirms, Timed};
