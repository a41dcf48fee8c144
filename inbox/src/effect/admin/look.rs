use std::time::SystemTime;

use diesel::QueryResult;
use diesel::connection::LoadConnection;

use crate::backend::InboxBackend;
use crate::effect::{EffectBackend, Policy, ProviderKey, State};

/// Which effects are meant. What is `None` does not restrict.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Selection {
    /// This number.
    pub id: Option<i64>,
    /// Of this consumer.
    pub consumer: Option<String>,
    /// Of this name.
    pub effect: Option<String>,
    /// In this state.
    pub state: Option<State>,
    /// Only those that wait for a person. Default false.
    pub in_review: bool,
    /// Only those of which an attempt has reported that it is done after another one, or a decision, had followed it.
    /// Default false.
    pub late: bool,
    /// Only with a greater number; the last one's pages on. Default 0.
    pub after: i64,
    /// At most so many, in order of their numbers. Default 1,000.
    pub limit: u32,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            id: None,
            consumer: None,
            effect: None,
            state: None,
            in_review: false,
            late: false,
            after: 0,
            limit: 1_000,
        }
    }
}

/// An effect, as it stands. Times are by the database's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Effect {
    /// Its number.
    pub id: i64,
    /// Whose it is.
    pub consumer: String,
    /// The scope of its operation.
    pub scope: String,
    /// The id of its operation.
    pub operation: String,
    /// Its name.
    pub effect: String,
    /// What the provider knows it by.
    pub key: ProviderKey,
    /// What may be done while it is unknown.
    pub policy: Policy,
    /// How it stands.
    pub state: State,
    /// Calls begun.
    pub attempts: i32,
    /// Questions to the provider since it became unknown.
    pub asks: i32,
    /// Who called last: host and process.
    pub owner: String,
    /// The provider's answer as JSON; `None` stands for null or for none. It can be anybody's data.
    pub result: Option<String>,
    /// What was wrong last.
    pub error: String,
    /// When it was first wanted.
    pub created_at: SystemTime,
    /// When the last call was begun.
    pub attempted_at: Option<SystemTime>,
    /// Until when a call may be under way.
    pub lease_until: Option<SystemTime>,
    /// When the provider is to be asked.
    pub ask_at: Option<SystemTime>,
    /// Since when it has been unknown.
    pub unknown_since: Option<SystemTime>,
    /// Since when a person has to decide.
    pub review_since: Option<SystemTime>,
    /// When it was performed, or refused for good.
    pub settled_at: Option<SystemTime>,
    /// When an attempt reported that it was done after another one, or a decision, had followed it.
    pub late_at: Option<SystemTime>,
    /// What it reported.
    pub late_result: Option<String>,
    /// Who decided, and why.
    pub decided: Option<(String, String)>,
    /// When.
    pub decided_at: Option<SystemTime>,
}

/// How many effects stand alike.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Count {
    /// The consumer.
    pub consumer: String,
    /// Their name.
    pub effect: String,
    /// How they stand.
    pub state: State,
    /// Whether they wait for a person.
    pub in_review: bool,
    /// How many.
    pub count: i64,
    /// When the first of them was first wanted.
    pub oldest: SystemTime,
}

/// Effects, in order of their numbers.
///
/// # Errors
/// When the database refuses.
pub fn list<C>(conn: &mut C, which: &Selection) -> QueryResult<Vec<Effect>>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    C::Backend::list_effects(conn, which)
}

/// One effect; `None` where none has this number.
///
/// # Errors
/// When the database refuses.
pub fn show<C>(conn: &mut C, id: i64) -> QueryResult<Option<Effect>>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    let which = Selection { id: Some(id), limit: 1, ..Selection::default() };
    Ok(C::Backend::list_effects(conn, &which)?.pop())
}

/// How many effects there are, by consumer, name and state; of one consumer where it is named.
///
/// # Errors
/// When the database refuses.
pub fn counts<C>(conn: &mut C, consumer: Option<&str>) -> QueryResult<Vec<Count>>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    C::Backend::count_effects(conn, consumer)
}
