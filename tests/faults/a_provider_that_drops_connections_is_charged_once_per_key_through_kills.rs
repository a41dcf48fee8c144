//! A provider performs a thousand charges and loses two connections in five, half of them before it has done anything
//! and half after, while the consumers that call it are killed fifty times. One that honours keys performs none
//! twice; one that can be asked, and honours nothing, performs each exactly once; with one that does neither each
//! unknown charge is in review and none was repeated, until a person has decided.

use std::collections::BTreeSet;

use inbox::effect::State;
use inbox::effect::admin::{Decision, Effect, Order, Selection, decide, list};
use message::Message;
use support::bookings::{self, Booking, booked};
use support::broker::{Corner, rabbitmq};
use support::consumers::Consumers;
use support::database::Database;
use support::provider::Stub;
use support::services::amqp_url;
use transport::rabbitmq::RabbitMq;

const CHARGES: usize = 1_000;
const KILLS: usize = 50;
const CONSUMERS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn one_that_honours_keys_performs_none_twice() {
    support::bounded(async {
        let scene = Scene::start(true, "repeat_safe").await;
        let accounts = scene.all_are_booked().await;
        // It had to recognize the key again and again.
        let repeated = accounts.values().filter(|account| account.requests > 1).count();
        assert!(repeated > CHARGES / 10, "{repeated}");
        assert!(accounts.values().all(|account| account.performed == 1), "{accounts:?}");
        scene.clean().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_can_be_asked_performs_each_exactly_once() {
    support::bounded(async {
        let scene = Scene::start(false, "ask").await;
        let accounts = scene.all_are_booked().await;
        let twice: Vec<_> = accounts.iter().filter(|(_, account)| account.performed != 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
        // Asking is what made a second request: where the first had been lost before it was performed.
        let repeated = accounts.values().filter(|account| account.requests > 1).count();
        assert!(repeated > CHARGES / 10, "{repeated}");
        scene.clean().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_neither_leaves_each_unknown_charge_to_a_person() {
    support::bounded(async {
        let scene = Scene::start(false, "review").await;
        support::eventually("each charge is done or waits for a person", async || {
            let effects = scene.effects();
            let settled = effects
                .iter()
                .filter(|effect| effect.state == State::Done || effect.review_since.is_some());
            settled.count() == CHARGES
        })
        .await;
        let accounts = scene.stub.accounts();
        let effects = scene.effects();
        let in_review = effects.iter().filter(|effect| effect.review_since.is_some());
        println!("{} in review", in_review.clone().count());
        assert!(in_review.clone().count() > CHARGES / 10);
        for effect in &effects {
            // A call whose process died before it had sent anything never arrived.
            let account = accounts.get(&effect.key.to_string()).copied().unwrap_or_default();
            assert!(account.requests <= 1, "{effect:?} was repeated: {account:?}");
            assert!(
                effect.state != State::Done || account.performed == 1,
                "{effect:?}: {account:?}"
            );
        }
        assert!(scene.booked() <= CHARGES - in_review.count());

        // A person looks each of them up.
        scene.stub.be_reliable();
        let order = Order::new("anna@desk", "looked it up at the provider");
        let mut conn = scene.database.pg();
        for effect in effects.iter().filter(|effect| effect.review_since.is_some()) {
            let known = accounts.get(&effect.key.to_string());
            let done = known.is_some_and(|account| account.performed > 0);
            let decision =
                if done { Decision::Done(Some("1".to_owned())) } else { Decision::NotDone };
            decide(&mut conn, effect.id, &decision, &order).expect("decides");
        }
        let accounts = scene.all_are_booked().await;
        assert!(accounts.values().all(|account| account.performed == 1), "{accounts:?}");
        scene.clean().await;
    })
    .await;
}

struct Scene {
    database: Database,
    corner: Corner<RabbitMq>,
    stub: Stub,
    consumers: Consumers,
}

impl Scene {
    /// Everything up to the last kill.
    async fn start(honours_keys: bool, policy: &str) -> Self {
        let database = Database::postgres();
        bookings::create(&mut database.pg());
        let corner = Corner::new(rabbitmq());
        let (exchange, queue) = corner.pair().await;
        let messages: Vec<Message> = (1..=CHARGES)
            .map(|number| Booking::new(1, i64::try_from(number).expect("fits")).message(&exchange))
            .collect();
        corner.publish(&messages).await;
        let stub = Stub::start(honours_keys).await;
        let orders = [&*database.url, &queue, &stub.address(), policy];
        let mut consumers = Consumers::of("charging_consumer", CONSUMERS, &orders, &amqp_url());
        for kill in 1..=KILLS {
            // As far as calls have come, whatever became of them.
            let so_far = CHARGES * kill / (KILLS + 2);
            support::eventually("charges go on", async || stub.accounts().len() >= so_far).await;
            consumers.kill_any();
        }
        Self { database, corner, stub, consumers }
    }

    fn effects(&self) -> Vec<Effect> {
        let mut which = Selection::default();
        which.limit = u32::MAX;
        list(&mut self.database.pg(), &which).expect("reads")
    }

    fn booked(&self) -> usize {
        booked(&mut self.database.pg()).len()
    }

    /// What the provider has on its books once every charge is booked here: once, and done.
    async fn all_are_booked(
        &self,
    ) -> std::collections::BTreeMap<String, support::provider::Account> {
        // What a killed process was retrying waits for the end of its lease, a minute, unless an operator says so.
        let which = inbox::admin::Selection { limit: u32::MAX, ..Default::default() };
        let order = inbox::admin::Order::new("anna@desk", "its process was killed");
        inbox::admin::retry_all(&mut self.database.pg(), &which, &order).expect("makes them due");
        support::eventually("every charge is booked", async || self.booked() >= CHARGES).await;
        let numbers: BTreeSet<_> =
            booked(&mut self.database.pg()).iter().map(|booking| booking.number).collect();
        assert_eq!((self.booked(), numbers.len()), (CHARGES, CHARGES));
        let effects = self.effects();
        assert_eq!(effects.len(), CHARGES);
        assert!(effects.iter().all(|effect| effect.state == State::Done));
        let accounts = self.stub.accounts();
        assert_eq!(self.stub.performed(), CHARGES);
        let requests: usize = accounts.values().map(|account| account.requests).sum();
        println!("{requests} requests for {CHARGES} charges");
        accounts
    }

    async fn clean(self) {
        let told = self.consumers.stop();
        println!("{:?}", support::consumers::counted(&told));
        self.corner.clean().await;
    }
}
