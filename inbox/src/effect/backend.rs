use message::OperationKey;

use super::Held;
use super::admin::{Count, Effect, Selection};
use crate::Consumer;
use crate::backend::stores;
use crate::store::NewEffect;

stores! {
    /// What a database does for effects; part of [`InboxBackend`](crate::InboxBackend).
    trait EffectBackend: diesel::backend::Backend;
    fn insert_effect(row: &NewEffect<'_>) -> Option<i64> = effect;
    fn lock_effect(consumer: Consumer<'_>, operation: &OperationKey, effect: &str) -> Option<Held> = effect;
    fn lock_effect_by(id: i64) -> Option<Held> = effect;
    fn write_effect(held: &Held, epoch: i64) -> bool = effect;
    fn lapsed_effects(consumer: Consumer<'_>, limit: i64) -> Vec<i64> = effect;
    fn overdue_effects(consumer: Consumer<'_>, time: i64, limit: i64) -> Vec<i64> = effect;
    fn due_effects(consumer: Consumer<'_>, names: Option<&str>, limit: i64) -> Vec<i64> = effect;
    fn wake_parked(consumers: &[String; 3], operation: &OperationKey) -> usize = effect;
    fn effect_figures(consumer: Consumer<'_>) -> (i64, i64) = effect;
    fn delete_effects(consumer: Consumer<'_>, names: &[String; 3], window: i64, rows: i64) -> i64 = effect;
    fn pass_effect_time(consumer: Consumer<'_>, time: i64) -> () = effect;
    fn list_effects(which: &Selection) -> Vec<Effect> = effects_seen;
    fn count_effects(consumer: Option<&str>) -> Vec<Count> = effects_seen;
    fn record_effect(id: i64, action: &str, actor: &str, reason: &str) -> () = effects_seen;
}
