use inbox::transition::Verdict::{Duplicate, Early, Review, Stale, To};
use inbox::transition::{Machine, MachineError, labels};

/// Under which name the machine's states and history are kept.
pub(crate) const NAME: &str = "order";

labels! {
    pub(crate) enum State {
        PendingPayment = "pending_payment",
        PaymentAuthorized = "payment_authorized",
        Confirmed = "confirmed",
        Cancelled = "cancelled",
    }

    pub(crate) enum Event {
        PaymentAuthorized = "payment.authorized",
        Confirmed = "order.confirmed",
        Cancelled = "order.cancelled",
    }
}

/// What each event means to an order, wherever it stands.
pub(crate) fn orders() -> Result<Machine<State, Event>, MachineError> {
    let rules = [
        (State::PendingPayment, Event::PaymentAuthorized, To(State::PaymentAuthorized)),
        (State::PendingPayment, Event::Confirmed, Early),
        (State::PendingPayment, Event::Cancelled, To(State::Cancelled)),
        (State::PaymentAuthorized, Event::PaymentAuthorized, Duplicate),
        (State::PaymentAuthorized, Event::Confirmed, To(State::Confirmed)),
        (State::PaymentAuthorized, Event::Cancelled, To(State::Cancelled)),
        (State::Confirmed, Event::PaymentAuthorized, Stale),
        (State::Confirmed, Event::Confirmed, Duplicate),
        (State::Cancelled, Event::Cancelled, Duplicate),
        // Money for an order that is no more has to be given back, and that is a person's decision.
        (State::Cancelled, Event::PaymentAuthorized, Review),
    ];
    Machine::new(NAME, State::PendingPayment, rules, Review)
}
