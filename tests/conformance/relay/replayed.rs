//! What a replay does with each ending a message can have.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use message::{Message, MessageId, name};
use outbox::Draft;
use outbox::admin::Order;
use outbox::replay::{NewReplay, ReplayInfo, ReplayJob, ReplayState, ReplayStore, Selection, plan};
use relay::Backoff;
use relay::replay::{ReplayError, ReplayOutcome, ReplayProgress, ReplaySettings, Replayer};
use support::events::Fact;
use transport::{Poison, Queue, QueueKind, Refusal, Topology, Verdict};

use super::{Path, Store, refuse};

const CONSUMER: &str = "billing";

fn settings() -> ReplaySettings {
    let mut settings = ReplaySettings::default();
    settings.batch = 4;
    settings.patience = Duration::from_secs(60);
    settings.backoff =
        Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(2) };
    settings
}

fn order() -> Order {
    Order::new("anna@desk", "a test")
}

/// Ten facts in the log, published to everybody, and a queue of the consumer's own.
async fn path<C: Store + ReplayStore>() -> Path<C> {
    let path = Path::<C>::new().await;
    path.enqueue_facts("k", 1..=10).await;
    path.run_once().await;
    declare(&path).await;
    path
}

async fn declare<C: Store>(path: &Path<C>) {
    let queue = Queue { kind: QueueKind::Classic, ..Queue::new(CONSUMER) };
    path.broker.declare_queue(&queue).await.expect("declares");
}

async fn start<C: Store + ReplayStore>(path: &Path<C>, forced: bool) -> ReplayJob {
    path.db
        .call(move |conn| {
            let selection = Selection::default();
            let plan = plan(conn, &selection)?;
            let (consumer, queue) = (CONSUMER.into(), CONSUMER.into());
            let new =
                NewReplay { consumer, queue, forced, selection, rate: 100_000, allow_gap: false };
            conn.start_replay(&new, &plan, "a test", Duration::from_secs(60), &order())
        })
        .await
        .expect("starts")
}

async fn resume<C: Store + ReplayStore>(path: &Path<C>, id: i64) -> ReplayJob {
    path.db
        .call(move |conn| conn.resume_replay(id, "again", Duration::from_secs(60), &order()))
        .await
        .expect("resumes")
}

async fn info<C: Store + ReplayStore>(path: &Path<C>, id: i64) -> ReplayInfo {
    path.db.call(move |conn| conn.replay(id)).await.expect("reads")
}

async fn run<C: Store + ReplayStore>(
    path: &Path<C>,
    job: ReplayJob,
) -> Result<ReplayOutcome, ReplayError> {
    run_under(path, job, settings()).await
}

async fn run_under<C: Store + ReplayStore>(
    path: &Path<C>,
    job: ReplayJob,
    settings: ReplaySettings,
) -> Result<ReplayOutcome, ReplayError> {
    let replayer = Replayer::new(path.db.clone(), Arc::new(path.broker.clone()), settings);
    support::bounded(replayer.run(job, |_| (), std::future::pending())).await
}

fn impatient() -> ReplaySettings {
    let mut settings = settings();
    settings.patience = Duration::from_millis(50);
    settings
}

/// What a replay brought to the broker, as a fact's number.
fn arrived<C: Store>(path: &Path<C>) -> Vec<Message> {
    path.broker.published().into_iter().filter(|message| message.exchange.is_empty()).collect()
}

fn numbers(messages: &[Message]) -> Vec<i64> {
    messages.iter().map(|message| Fact::from_payload(&message.payload).number).collect()
}

async fn history_goes_to_one_queue_marked_and_as_it_was<C: Store + ReplayStore>() {
    let path = path::<C>().await;
    let forged = Draft::of(&Fact::of("k", 11));
    path.enqueue(vec![forged]).await;
    path.sql("UPDATE outbox_messages SET headers = '{\"counterfoil-replay-forced\":\"billing\",\"mine\":\"x\"}' WHERE seq = 11").await;
    path.run_once().await;
    let before: Vec<Message> = path.broker.published();
    let everybody = path.broker.depth("all");
    for (forced, mark) in [(false, None), (true, Some(CONSUMER))] {
        let job = start(&path, forced).await;
        let id = job.id;
        let seen = arrived(&path).len();
        let progress = Arc::new(Mutex::new(Vec::new()));
        let told = progress.clone();
        let replayer = Replayer::new(path.db.clone(), Arc::new(path.broker.clone()), settings());
        let observe = move |done: ReplayProgress| told.lock().expect("sound").push(done.sent);
        let outcome = support::bounded(replayer.run(job, observe, std::future::pending())).await;
        assert_eq!(outcome.expect("sends"), ReplayOutcome::Done);
        let progress = progress.lock().expect("sound").clone();
        assert!(progress.is_sorted() && progress.len() >= 3, "{progress:?}");
        let messages = arrived(&path).split_off(seen);
        let ids = |messages: &[Message]| messages.iter().map(|m| m.id).collect::<Vec<MessageId>>();
        assert_eq!(ids(&messages), ids(&before));
        for (message, original) in messages.iter().zip(&before) {
            assert_eq!(message.headers.get(name::REPLAY), Some(&id.to_string()[..]));
            assert_eq!(message.headers.get(name::REPLAY_FORCED), mark);
            assert_eq!(message.headers.get("mine"), original.headers.get("mine"));
            assert_eq!(message.headers.fingerprint(), original.headers.fingerprint());
            assert_eq!(
                (&message.payload, &message.kind, &message.operation, &message.ordering_key),
                (&original.payload, &original.kind, &original.operation, &original.ordering_key)
            );
        }
        let info = info(&path, id).await;
        assert_eq!((info.state, info.sent, info.total), (ReplayState::Done, 11, 11));
        assert_eq!((info.deleted_meanwhile(), info.holder), (0, None));
    }
    assert_eq!((path.broker.depth("all"), path.broker.depth(CONSUMER)), (everybody, 22));
}

async fn a_missing_queue_fails_with_nothing_skipped<C: Store + ReplayStore>() {
    let path = path::<C>().await;
    path.broker.delete_queue(CONSUMER).await.expect("deletes");
    let job = start(&path, false).await;
    let (id, position) = (job.id, job.position);
    match run(&path, job).await {
        Err(ReplayError::QueueMissing { queue }) => assert_eq!(queue, CONSUMER),
        other => panic!("{other:?}"),
    }
    let failed = info(&path, id).await;
    assert_eq!((failed.state, failed.position, failed.sent), (ReplayState::Failed, position, 0));
    assert!(failed.last_error.contains("no queue \"billing\""), "{}", failed.last_error);
    declare(&path).await;
    let job = resume(&path, id).await;
    assert_eq!(run(&path, job).await.expect("sends"), ReplayOutcome::Done);
    assert_eq!(numbers(&arrived(&path)), Vec::from_iter(1..=10));
}

/// What was confirmed in front of a refusal counts, what comes behind it is sent again with it.
async fn a_refusal_in_mid_batch_stops_there<C: Store + ReplayStore>() {
    let path = path::<C>().await;
    let text = "ACCESS_REFUSED".to_owned();
    path.broker.script(refuse("k-6", Verdict::Refused(Refusal::AccessRefused { text })));
    let job = start(&path, false).await;
    let id = job.id;
    assert!(matches!(run(&path, job).await, Err(ReplayError::Refused { .. })));
    let failed = info(&path, id).await;
    assert_eq!((failed.state, failed.position, failed.sent), (ReplayState::Failed, 5, 5));
    path.broker.clear_script();
    let job = resume(&path, id).await;
    assert_eq!(run(&path, job).await.expect("sends"), ReplayOutcome::Done);
    assert_eq!(numbers(&arrived(&path)), [1, 2, 3, 4, 5, 7, 8, 6, 7, 8, 9, 10]);
    assert_eq!(info(&path, id).await.sent, 10);
}

async fn a_full_queue_and_a_lost_broker_are_waited_for<C: Store + ReplayStore>() {
    let path = path::<C>().await;
    // Once in the batch that fails as a whole, once in its repetition.
    let left = Mutex::new(2);
    path.broker.script(move |message| {
        let mut left = left.lock().expect("sound");
        let refuse = message.operation == "k-3" && *left > 0;
        *left -= i32::from(refuse);
        refuse.then_some(Verdict::Refused(Refusal::Nacked))
    });
    path.broker.fail_next_publishes(1);
    let job = start(&path, false).await;
    let id = job.id;
    assert_eq!(run(&path, job).await.expect("sends"), ReplayOutcome::Done);
    // What came behind the refused one comes again behind it.
    let arrived = numbers(&arrived(&path));
    assert_eq!(arrived, [1, 2, 4, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(info(&path, id).await.sent, 10);

    path.broker.script(|_| Some(Verdict::Refused(Refusal::Nacked)));
    let job = start(&path, false).await;
    let full = run_under(&path, job, impatient()).await;
    assert!(matches!(full, Err(ReplayError::QueueFull { .. })));
    path.broker.clear_script();
    path.broker.disconnect();
    let job = start(&path, false).await;
    let id = job.id;
    let gone = run_under(&path, job, impatient()).await;
    assert!(matches!(gone, Err(ReplayError::Broker(_))));
    assert_eq!(info(&path, id).await.state, ReplayState::Failed);
}

/// It did not arrive the first time either.
async fn a_row_that_no_broker_takes_is_passed_and_counted<C: Store + ReplayStore>() {
    let path = path::<C>().await;
    let poison = Poison::TooLarge { text: "too large".into() };
    path.broker.script(refuse("k-2", Verdict::Poison(poison)));
    let job = start(&path, false).await;
    let id = job.id;
    assert_eq!(run(&path, job).await.expect("sends"), ReplayOutcome::Done);
    let done = info(&path, id).await;
    assert_eq!((done.sent, done.unsendable, done.deleted_meanwhile()), (9, 1, 0));
}

async fn confirms_that_are_lost_repeat_one_batch<C: Store + ReplayStore>() {
    let path = path::<C>().await;
    path.broker.lose_confirms(1);
    let job = start(&path, false).await;
    let id = job.id;
    assert_eq!(run(&path, job).await.expect("sends"), ReplayOutcome::Done);
    assert_eq!(numbers(&arrived(&path)), [1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(info(&path, id).await.sent, 10);
}

async fn a_cancelled_or_stopped_replay_sends_no_more<C: Store + ReplayStore>() {
    let path = path::<C>().await;
    let job = start(&path, false).await;
    let id = job.id;
    let replayer = Replayer::new(path.db.clone(), Arc::new(path.broker.clone()), settings());
    let asked = support::bounded(replayer.run(job, |_| (), std::future::ready(()))).await;
    assert_eq!(asked.expect("stops"), ReplayOutcome::Stopped);
    assert_eq!(info(&path, id).await.holder, None);
    assert!(arrived(&path).is_empty());

    let job = resume(&path, id).await;
    path.db.call(move |conn| conn.cancel_replay(id, &order())).await.expect("cancels");
    assert_eq!(run(&path, job).await.expect("stops"), ReplayOutcome::Cancelled);
    assert!(arrived(&path).len() <= 4, "a batch at most");
    assert_eq!(info(&path, id).await.state, ReplayState::Cancelled);
}

on_every_store!(
    history_goes_to_one_queue_marked_and_as_it_was,
    a_missing_queue_fails_with_nothing_skipped,
    a_refusal_in_mid_batch_stops_there,
    a_full_queue_and_a_lost_broker_are_waited_for,
    a_row_that_no_broker_takes_is_passed_and_counted,
    confirms_that_are_lost_repeat_one_batch,
    a_cancelled_or_stopped_replay_sends_no_more,
);
