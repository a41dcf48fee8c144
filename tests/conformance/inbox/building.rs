//! What is refused before anything is received.

use std::sync::Arc;

use inbox::{BuildError, Context, Inbox, ReplaySafe, RunError, SideEffects};
use support::feed::Feed;
use support::inbox::{BILLING, Payment, Store, crediting};

use super::on_both;

on_both!(
    a_schema_that_is_not_current_stops_it_before_anything_is_received,
    what_cannot_work_is_not_built,
    a_generation_has_replay_safe_handlers_only,
);

async fn a_schema_that_is_not_current_stops_it_before_anything_is_received<C: Store>() {
    let database = C::database();
    migrations::revert_last(&mut C::connection(&database)).expect("reverts");
    let feed = Feed::new();
    let number = feed.deliver(&Payment::new("p1", 1).message());
    let inbox =
        crediting::<C>(C::pool(&database), Arc::new(feed.clone()), "q").build().expect("builds");
    let error = inbox.run(std::future::pending()).await.expect_err("no tables");
    assert!(matches!(error, RunError::Schema(migrations::SchemaError::Outdated { .. })), "{error}");
    assert_eq!(feed.answer(number), None);
}

async fn what_cannot_work_is_not_built<C: Store>() {
    let database = C::database();
    let new = || Inbox::new(BILLING, C::pool(&database), Arc::new(Feed::new()), "q");
    let refused = |builder: inbox::Builder<C>| builder.build().expect_err("must not build");
    let apply = |_: &mut C, _: &Payment, _: &Context<'_>| Ok(());
    assert_eq!(refused(new()), BuildError::NoHandlers);
    assert_eq!(
        refused(new().on(ReplaySafe, apply).on(ReplaySafe, apply)),
        BuildError::HandledTwice { kind: "payment.succeeded" }
    );
    let lost = BuildError::KeyWithoutHandler { kind: "other".into() };
    assert_eq!(refused(new().on(ReplaySafe, apply).operation_key("other", |_| None)), lost);
    assert!(matches!(
        refused(new().on(ReplaySafe, apply).concurrency(0)),
        BuildError::BadSetting { setting: "concurrency", .. }
    ));
    let small = BuildError::PoolTooSmall { concurrency: 9, pool_size: 8 };
    assert_eq!(refused(new().on(ReplaySafe, apply).concurrency(9)), small);
    let nameless = Inbox::new(inbox::Consumer(""), C::pool(&database), Arc::new(Feed::new()), "q")
        .on(ReplaySafe, apply);
    assert!(matches!(refused(nameless), BuildError::Invalid(_)));
}

/// A rebuild applies the history again, so nothing in it may reach the world.
async fn a_generation_has_replay_safe_handlers_only<C: Store>() {
    let database = C::database();
    let new =
        |name| Inbox::new(inbox::Consumer(name), C::pool(&database), Arc::new(Feed::new()), "q");
    let apply = |_: &mut C, _: &Payment, _: &Context<'_>| Ok(());
    let unsafe_one = || new("billing").on(SideEffects, apply);
    assert!(unsafe_one().generation(1).build().is_ok());
    assert_eq!(
        unsafe_one().generation(2).build().expect_err("must not build"),
        BuildError::NotReplaySafe { kind: "payment.succeeded", generation: 2 }
    );
    assert!(new("billing").on(ReplaySafe, apply).generation(2).build().is_ok());
    assert!(matches!(
        new("billing").on(ReplaySafe, apply).generation(0).build().expect_err("must not build"),
        BuildError::BadSetting { setting: "generation", .. }
    ));
    assert_eq!(
        new("billing#2").on(ReplaySafe, apply).build().expect_err("must not build"),
        BuildError::ReservedName { consumer: "billing#2".into() }
    );
}
