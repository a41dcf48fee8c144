use std::time::SystemTime;

use diesel::QueryResult;
use diesel::connection::LoadConnection;
use message::check_name;

use super::{GenerationBackend, RebuildError};
use crate::Consumer;
use crate::backend::InboxBackend;

/// Begins the number of a generation in a name.
const MARK: char = '#';

/// Who orders a step, and why.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// The person or program, 1 to 255 bytes.
    pub actor: &'a str,
    /// Why, for whoever reads the audit later.
    pub reason: &'a str,
}

/// The generations of a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Generations {
    /// The one that readers use.
    pub active: u32,
    /// The one that is being built.
    pub building: Option<u32>,
    /// The highest number given out.
    pub newest: u32,
    /// When the newest one was begun, by the database's clock.
    pub started_at: SystemTime,
    /// When the one being built was found to have everything.
    pub caught_up_at: Option<SystemTime>,
    /// When readers were switched last.
    pub switched_at: Option<SystemTime>,
}

/// The name under which a generation keeps its operations: the consumer's own for generation 1, else as in
/// `billing#2`.
#[must_use]
pub fn name(consumer: Consumer<'_>, generation: u32) -> String {
    match generation {
        0 | 1 => consumer.0.to_owned(),
        later => format!("{consumer}{MARK}{later}"),
    }
}

/// The consumer's own name, of it or of a generation.
pub(crate) fn own(consumer: &str) -> &str {
    consumer.split_once(MARK).map_or(consumer, |(own, _)| own)
}

/// The names under which the generations of a consumer keep what they know, those of before the active one aside.
/// Three, so that one statement does for all; some can be the same.
pub(crate) fn names<C>(conn: &mut C, consumer: &str) -> QueryResult<[String; 3]>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    let own = Consumer(own(consumer));
    let known = C::Backend::generations(conn, own)?;
    let [active, building] =
        known.map_or([1, 1], |known| [known.active, known.building.unwrap_or(1)]);
    Ok([1, active, building].map(|generation| name(own, generation)))
}

/// Whether a name is a consumer's own or a generation's, and no other use of the mark.
pub(crate) fn well_formed(consumer: &str) -> bool {
    let Some((own, number)) = consumer.split_once(MARK) else { return true };
    let plain = number.bytes().all(|digit| digit.is_ascii_digit()) && !number.starts_with('0');
    !own.is_empty() && plain && number.parse::<u32>().is_ok_and(|number| number > 1)
}

/// Gives out the next generation, to be built.
///
/// # Errors
/// [`RebuildError`]: one is being built already.
pub fn begin<C>(conn: &mut C, consumer: Consumer<'_>, by: By<'_>) -> Result<u32, RebuildError>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    check(consumer, by)?;
    conn.transaction(|conn| match C::Backend::begin_generation(conn, consumer)? {
        Some(generation) => {
            let generation = number(generation);
            check_name("consumer", &name(consumer, generation))?;
            record(conn, consumer, by, "rebuild.begin", generation)?;
            Ok(generation)
        }
        None => {
            let generation = building(conn, consumer)?.unwrap_or_default();
            Err(RebuildError::AlreadyBuilding { consumer: consumer.0.to_owned(), generation })
        }
    })
}

/// Says that the generation being built has everything: its replay is done and its queue is empty, what
/// is delivered and not acknowledged included. This function cannot see either; it refuses while messages of the generation are parked.
///
/// # Errors
/// [`RebuildError`]: it is not being built, or messages of it are parked.
pub fn caught_up<C>(
    conn: &mut C,
    consumer: Consumer<'_>,
    generation: u32,
    by: By<'_>,
) -> Result<(), RebuildError>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    check(consumer, by)?;
    let own = name(consumer, generation);
    conn.transaction(|conn| {
        if C::Backend::mark_caught_up(conn, consumer, i64::from(generation), &own)? {
            return record(conn, consumer, by, "rebuild.caught_up", generation);
        }
        Err(match building(conn, consumer)? {
            Some(found) if found == generation => RebuildError::Parked { consumer: own },
            found => not_building(consumer, generation, found),
        })
    })
}

/// Makes a generation that has caught up the active one: readers who ask [`active`] from now on get
/// it. One guarded update.
///
/// # Errors
/// [`RebuildError`]: it is not being built, has not caught up, or messages of it are parked.
pub fn switch<C>(
    conn: &mut C,
    consumer: Consumer<'_>,
    generation: u32,
    by: By<'_>,
) -> Result<(), RebuildError>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    check(consumer, by)?;
    let own = name(consumer, generation);
    conn.transaction(|conn| {
        if C::Backend::switch_generation(conn, consumer, i64::from(generation), &own)? {
            return record(conn, consumer, by, "rebuild.switch", generation);
        }
        Err(match generations(conn, consumer)? {
            Some(Generations { building: Some(found), caught_up_at, .. })
                if found == generation =>
            {
                match caught_up_at {
                    Some(_) => RebuildError::Parked { consumer: own },
                    None => {
                        RebuildError::NotCaughtUp { consumer: consumer.0.to_owned(), generation }
                    }
                }
            }
            found => not_building(consumer, generation, found.and_then(|found| found.building)),
        })
    })
}

/// Gives up the generation that is being built. Stop its inbox first; what it has applied stays until
/// [`forget`].
///
/// # Errors
/// [`RebuildError`]: it is not being built.
pub fn abandon<C>(
    conn: &mut C,
    consumer: Consumer<'_>,
    generation: u32,
    by: By<'_>,
) -> Result<(), RebuildError>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    check(consumer, by)?;
    conn.transaction(|conn| {
        if C::Backend::abandon_generation(conn, consumer, i64::from(generation))? {
            return record(conn, consumer, by, "rebuild.abandon", generation);
        }
        let found = building(conn, consumer)?;
        Err(not_building(consumer, generation, found))
    })
}

/// The generation that readers use; 1 for a consumer that was never rebuilt. Ask in the transaction
/// that reads the projection: then a switch in between changes nothing under it.
///
/// # Errors
/// What the database said.
pub fn active<C>(conn: &mut C, consumer: Consumer<'_>) -> QueryResult<u32>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    Ok(generations(conn, consumer)?.map_or(1, |found| found.active))
}

/// How a consumer's generations stand; `None` where it was never rebuilt.
///
/// # Errors
/// What the database said.
pub fn generations<C>(conn: &mut C, consumer: Consumer<'_>) -> QueryResult<Option<Generations>>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    C::Backend::generations(conn, consumer)
}

/// Deletes at most `batch` rows of what the inbox keeps of a generation that is not in use any more:
/// operations, then parked messages, then starts. Returns how many; call it until that is 0. Stop the
/// inbox of the generation first: it would apply again what comes again. The projection's own tables
/// are yours to drop.
///
/// # Errors
/// [`RebuildError`]: the generation is in use, or there has been none of this number.
pub fn forget<C>(
    conn: &mut C,
    consumer: Consumer<'_>,
    generation: u32,
    batch: u32,
) -> Result<u64, RebuildError>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    own_name(consumer)?;
    let found = generations(conn, consumer)?;
    let (active, building, newest) =
        found.map_or((1, None, 1), |found| (found.active, found.building, found.newest));
    let own = consumer.0.to_owned();
    if generation == 0 || generation > newest {
        return Err(RebuildError::Unknown { consumer: own, generation, newest });
    }
    // No lock between this look and the deletion: a number that is out of use stays so.
    if generation == active || building == Some(generation) {
        return Err(RebuildError::InUse { consumer: own, generation });
    }
    Ok(C::Backend::forget_generation(conn, &name(consumer, generation), i64::from(batch))? as u64)
}

fn building<C>(conn: &mut C, consumer: Consumer<'_>) -> QueryResult<Option<u32>>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    Ok(generations(conn, consumer)?.and_then(|found| found.building))
}

fn record<C>(
    conn: &mut C,
    consumer: Consumer<'_>,
    by: By<'_>,
    action: &str,
    generation: u32,
) -> Result<(), RebuildError>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    let detail = format!("{{\"generation\":{generation}}}");
    Ok(C::Backend::record_generation(conn, consumer, (by.actor, by.reason), action, &detail)?)
}

fn not_building(consumer: Consumer<'_>, generation: u32, building: Option<u32>) -> RebuildError {
    RebuildError::NotBuilding { consumer: consumer.0.to_owned(), generation, building }
}

fn check(consumer: Consumer<'_>, by: By<'_>) -> Result<(), RebuildError> {
    own_name(consumer)?;
    check_name("actor", by.actor)?;
    if by.reason.trim().is_empty() {
        return Err(RebuildError::NoReason);
    }
    Ok(())
}

fn own_name(consumer: Consumer<'_>) -> Result<(), RebuildError> {
    check_name("consumer", consumer.0)?;
    if consumer.0.contains(MARK) {
        return Err(RebuildError::ReservedName { consumer: consumer.0.to_owned() });
    }
    Ok(())
}

/// As stored.
pub(crate) fn number(generation: i64) -> u32 {
    u32::try_from(generation).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_consumer_s_own_or_a_generation_s() {
        let billing = Consumer("billing");
        assert_eq!((&name(billing, 1)[..], &name(billing, 12)[..]), ("billing", "billing#12"));
        for good in ["billing", "billing#2", "b#4294967295"] {
            assert!(well_formed(good), "{good}");
        }
        for bad in [
            "#2",
            "billing#",
            "billing#1",
            "billing#0",
            "billing#02",
            "b#2#3",
            "b#x",
            "b#4294967296",
            "b#+2",
        ] {
            assert!(!well_formed(bad), "{bad}");
        }
    }
}
