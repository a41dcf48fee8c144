//! What the benches share: a database and a queue of their own, and figures by name.

mod direct;
mod figures;
mod fixture;

pub use direct::{Direct, Ready};
pub use figures::Figures;
pub use fixture::{Fixture, PAYLOAD_BYTES};
