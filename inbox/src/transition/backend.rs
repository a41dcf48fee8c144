use crate::backend::stores;
use crate::store::{Move, NewTransition, Standing, Transition};

stores! {
    /// What a database does for state machines; part of [`InboxBackend`](crate::InboxBackend).
    trait TransitionBackend: diesel::backend::Backend;
    fn standing(machine: &str, entity: &str) -> Option<Standing> = transition;
    fn first_move(to: &Move<'_>) -> bool = transition;
    fn next_move(to: &Move<'_>) -> bool = transition;
    fn record(row: &NewTransition<'_>) -> () = transition;
    fn history(machine: &str, entity: &str, after: i64, limit: i64) -> Vec<Transition> = transition;
}
