use std::collections::HashSet;

use lapin::Confirmation;
use message::Message;

use crate::{Refusal, Verdict};

/// The confirms do not fit what was sent; nothing can be said about any of it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsettled {
    #[error("the broker returned a message that is not in the batch")]
    ForeignReturn,
    #[error("the channel is not in confirm mode")]
    NotConfirming,
}

/// Turns the confirms of a window into verdicts, one for each message in order. Every confirm must
/// have come: only then has every return been handed out.
///
/// A return is never attributed by the confirm that carries it. The client keeps returns in one
/// queue and gives the oldest to whichever confirm is handled next, so under pipelining an
/// unroutable message can carry a plain ack while its neighbour carries the return. Identity is the
/// message id; exchange and routing key are compared too, so that an id that occurs twice in a
/// window under two routes is judged by route.
///
/// The same id twice under one route is refused as a whole when one copy came back: a copy that got
/// through is then sent again, which is allowed; the other way round it would be lost.
pub(super) fn settle(
    window: &[&Message],
    confirmations: Vec<Confirmation>,
) -> Result<Vec<Verdict>, Unsettled> {
    let mut nacked = Vec::with_capacity(confirmations.len());
    let mut returned = HashSet::new();
    for confirmation in confirmations {
        let carried = match confirmation {
            Confirmation::Ack(carried) => {
                nacked.push(false);
                carried
            }
            Confirmation::Nack(carried) => {
                nacked.push(true);
                carried
            }
            Confirmation::NotRequested => return Err(Unsettled::NotConfirming),
        };
        if let Some(message) = carried {
            let delivery = message.delivery;
            let Some(id) = delivery.properties.message_id() else {
                return Err(Unsettled::ForeignReturn);
            };
            returned.insert((
                id.to_string(),
                delivery.exchange.to_string(),
                delivery.routing_key.to_string(),
            ));
        }
    }
    let mut matched = HashSet::new();
    let verdicts = window
        .iter()
        .zip(nacked)
        .map(|(message, nacked)| {
            if !returned.is_empty() {
                let route =
                    (message.id.to_string(), message.exchange.clone(), message.routing_key.clone());
                if returned.contains(&route) {
                    matched.insert(route);
                    return Verdict::Refused(Refusal::Unroutable {
                        exchange: message.exchange.clone(),
                        routing_key: message.routing_key.clone(),
                    });
                }
            }
            if nacked { Verdict::Refused(Refusal::Nacked) } else { Verdict::Confirmed }
        })
        .collect();
    if matched.len() < returned.len() {
        return Err(Unsettled::ForeignReturn);
    }
    Ok(verdicts)
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;
    use lapin::message::{BasicReturnMessage, Delivery};
    use message::{Headers, MessageId};

    use super::*;

    fn message(routing_key: &str) -> Message {
        Message {
            id: MessageId::new(),
            kind: "k".into(),
            operation: "o".into(),
            ordering_key: None,
            exchange: "e".into(),
            routing_key: routing_key.into(),
            headers: Headers::new(),
            content_type: "t".into(),
            payload: "".into(),
            created_at: std::time::SystemTime::now(),
        }
    }

    fn returned(message: &Message) -> Option<BasicReturnMessage> {
        let mut delivery = Delivery::mock(
            0,
            message.exchange.as_str().into(),
            message.routing_key.as_str().into(),
            false,
            vec![],
        );
        delivery.properties =
            BasicProperties::default().with_message_id(message.id.to_string().into());
        Some(BasicReturnMessage { delivery, reply_code: 312, reply_text: "NO_ROUTE".into() })
    }

    fn unroutable(message: &Message) -> Verdict {
        Verdict::Refused(Refusal::Unroutable {
            exchange: message.exchange.clone(),
            routing_key: message.routing_key.clone(),
        })
    }

    #[test]
    fn a_return_counts_for_its_message_whichever_confirm_carries_it() {
        let (a, b, c) = (message("a"), message("b"), message("c"));
        let confirms =
            vec![Confirmation::Ack(returned(&b)), Confirmation::Ack(None), Confirmation::Ack(None)];
        let verdicts = settle(&[&a, &b, &c], confirms).expect("settled");
        assert_eq!(verdicts, [Verdict::Confirmed, unroutable(&b), Verdict::Confirmed]);
    }

    #[test]
    fn a_nack_that_carries_a_neighbours_return_is_still_a_nack() {
        let (a, b) = (message("a"), message("b"));
        let confirms = vec![Confirmation::Nack(returned(&b)), Confirmation::Ack(None)];
        let verdicts = settle(&[&a, &b], confirms).expect("settled");
        assert_eq!(verdicts, [Verdict::Refused(Refusal::Nacked), unroutable(&b)]);
    }

    #[test]
    fn one_id_under_two_routes_is_judged_by_route() {
        let good = message("good");
        let bad = Message { routing_key: "bad".into(), ..good.clone() };
        let confirms = vec![Confirmation::Ack(None), Confirmation::Ack(returned(&bad))];
        let verdicts = settle(&[&good, &bad], confirms).expect("settled");
        assert_eq!(verdicts, [Verdict::Confirmed, unroutable(&bad)]);
    }

    #[test]
    fn one_id_twice_on_one_route_is_refused_as_a_whole() {
        let a = message("a");
        for confirms in [
            vec![Confirmation::Ack(returned(&a)), Confirmation::Ack(returned(&a))],
            vec![Confirmation::Ack(returned(&a)), Confirmation::Ack(None)],
        ] {
            assert_eq!(
                settle(&[&a, &a], confirms).expect("settled"),
                [unroutable(&a), unroutable(&a)]
            );
        }
        let confirms = vec![Confirmation::Ack(None), Confirmation::Ack(None)];
        assert_eq!(
            settle(&[&a, &a], confirms).expect("settled"),
            [Verdict::Confirmed, Verdict::Confirmed]
        );
    }

    #[test]
    fn a_return_of_something_else_settles_nothing() {
        let (a, stranger) = (message("a"), message("a"));
        let confirms = vec![Confirmation::Ack(returned(&stranger))];
        assert_eq!(settle(&[&a], confirms), Err(Unsettled::ForeignReturn));
        assert_eq!(settle(&[&a], vec![Confirmation::NotRequested]), Err(Unsettled::NotConfirming));
    }
}
