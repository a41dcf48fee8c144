use super::Generations;
use crate::Consumer;
use crate::backend::stores;

stores! {
    /// The statements on generations. Implemented for `Pg` and `Sqlite`; see
    /// [`InboxBackend`](crate::InboxBackend).
    trait GenerationBackend: diesel::backend::Backend;
    fn begin_generation(consumer: Consumer<'_>) -> Option<i64> = generation;
    fn mark_caught_up(consumer: Consumer<'_>, generation: i64, own: &str) -> bool = generation;
    fn switch_generation(consumer: Consumer<'_>, generation: i64, own: &str) -> bool = generation;
    fn abandon_generation(consumer: Consumer<'_>, generation: i64) -> bool = generation;
    fn generations(consumer: Consumer<'_>) -> Option<Generations> = generation;
    fn forget_generation(own: &str, batch: i64) -> usize = generation;
    fn record_generation(consumer: Consumer<'_>, by: (&str, &str), action: &str, detail: &str) -> () = generation;
}
