use super::time;
use crate::rebuild::{Generations, number};

/// A row of `inbox_generations`, times in microseconds since 1970.
pub(super) type Stored = (i64, Option<i64>, i64, i64, Option<i64>, Option<i64>);

pub(super) fn generations_of(
    (active, building, newest, started_at, caught_up_at, switched_at): Stored,
) -> Generations {
    Generations {
        active: number(active),
        building: building.map(number),
        newest: number(newest),
        started_at: time(started_at),
        caught_up_at: caught_up_at.map(time),
        switched_at: switched_at.map(time),
    }
}
