//! Deliveries made by hand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use message::{Headers, Message, name};
use tokio::sync::mpsc;
use transport::{Acknowledge, Delivery, Subscriber, Subscription, Unavailable};

/// How a delivery was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It may be forgotten.
    Ack,
    /// It shall come again.
    Requeue,
}

type Witness = Box<dyn Fn(u64, Answer) + Send + Sync>;

/// A subscriber whose deliveries are made by hand, with any property missing or broken.
#[derive(Clone)]
pub struct Feed {
    send: mpsc::UnboundedSender<Delivery>,
    receive: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Delivery>>>,
    answers: Arc<Answers>,
    next: Arc<AtomicU64>,
    on_its_way: Arc<AtomicBool>,
}

#[derive(Default)]
struct Answers {
    given: Mutex<HashMap<u64, Answer>>,
    witness: Mutex<Option<Witness>>,
    lost: AtomicBool,
}

impl Answers {
    fn unanswered_through(&self, last: u64) -> Vec<u64> {
        let given = self.given.lock().unwrap();
        (0..=last).filter(|number| !given.contains_key(number)).collect()
    }
}

impl Feed {
    /// An empty feed.
    #[must_use]
    pub fn new() -> Self {
        let (send, receive) = mpsc::unbounded_channel();
        let receive = Arc::new(tokio::sync::Mutex::new(receive));
        Self {
            send,
            receive,
            answers: Arc::default(),
            next: Arc::default(),
            on_its_way: Arc::default(),
        }
    }

    /// Is called at the very moment an answer is given.
    pub fn witness(&self, witness: impl Fn(u64, Answer) + Send + Sync + 'static) {
        *self.answers.witness.lock().unwrap() = Some(Box::new(witness));
    }

    /// Delivers a message as a broker would; returns its number.
    pub fn deliver(&self, message: &Message) -> u64 {
        let mut headers = message.headers.clone();
        headers.insert(name::OPERATION, message.operation.clone());
        if let Some(key) = &message.ordering_key {
            headers.insert(name::ORDERING_KEY, key.clone());
        }
        self.deliver_raw(|delivery| {
            delivery.message_id = Some(message.id.to_string());
            delivery.kind = Some(message.kind.clone());
            delivery.headers = headers;
            delivery.content_type = Some(message.content_type.clone());
            delivery.payload = message.payload.clone();
            delivery.timestamp = Some(message.created_at);
        })
    }

    /// Delivers an empty message after a change to it; returns its number.
    pub fn deliver_raw(&self, change: impl FnOnce(&mut Delivery)) -> u64 {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let mut delivery = Delivery {
            message_id: None,
            kind: None,
            exchange: "events".to_owned(),
            routing_key: "ok".to_owned(),
            headers: Headers::new(),
            content_type: None,
            payload: bytes::Bytes::new(),
            timestamp: None,
            redelivered: false,
            acker: Box::new(Acker { number, answers: self.answers.clone() }),
        };
        change(&mut delivery);
        self.send.send(delivery).expect("the feed is open");
        number
    }

    /// What has been delivered is counted no more, and not there yet for whoever looks first.
    pub fn put_on_its_way(&self) {
        self.on_its_way.store(true, Ordering::SeqCst);
    }

    /// Whether answers are lost on the way from now on.
    pub fn lose_answers(&self, lost: bool) {
        self.answers.lost.store(lost, Ordering::SeqCst);
    }

    /// How a delivery was answered; `None` while it is not.
    #[must_use]
    pub fn answer(&self, number: u64) -> Option<Answer> {
        self.answers.given.lock().unwrap().get(&number).copied()
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Subscriber for Feed {
    async fn subscribe(
        &self,
        _queue: &str,
        _prefetch: u16,
    ) -> Result<Box<dyn Subscription>, Unavailable> {
        Ok(Box::new(self.clone()))
    }

    async fn close(&self) {}
}

#[async_trait]
impl Subscription for Feed {
    async fn receive(&mut self) -> Result<Delivery, Unavailable> {
        if self.on_its_way.swap(false, Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(self.receive.lock().await.recv().await.expect("the feed keeps a sender"))
    }

    async fn waiting(&mut self) -> Result<u64, Unavailable> {
        let counted = !self.on_its_way.load(Ordering::SeqCst);
        Ok(if counted { self.receive.lock().await.len() as u64 } else { 0 })
    }
}

struct Acker {
    number: u64,
    answers: Arc<Answers>,
}

impl std::fmt::Debug for Acker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Acker({})", self.number)
    }
}

impl Acker {
    fn answer(&self, answer: Answer) {
        if let Some(witness) = &*self.answers.witness.lock().unwrap() {
            witness(self.number, answer);
        }
        assert_eq!(
            self.answers.given.lock().unwrap().insert(self.number, answer),
            None,
            "answered twice"
        );
    }
}

#[async_trait]
impl Acknowledge for Acker {
    async fn ack(self: Box<Self>) -> Result<(), Unavailable> {
        if self.answers.lost.load(Ordering::SeqCst) {
            return Err(Unavailable::Lost { source: "the connection broke".into() });
        }
        self.answer(Answer::Ack);
        Ok(())
    }

    async fn ack_through(self: Box<Self>) -> Result<(), Unavailable> {
        for number in self.answers.unanswered_through(self.number) {
            Self { number, answers: self.answers.clone() }.answer(Answer::Ack);
        }
        Ok(())
    }

    async fn requeue(self: Box<Self>) -> Result<(), Unavailable> {
        self.answer(Answer::Requeue);
        Ok(())
    }
}
