//! The definition of a transport. [`conformance!`] runs every scenario against one broker.

pub(crate) mod consuming;
pub(crate) mod publishing;
pub(crate) mod sharing;
pub(crate) mod topology;

use support::broker::{Broker, Corner};

/// A broker under test.
pub(crate) trait Harness {
    type Broker: Broker;

    /// A fresh client of the broker.
    fn connect(&self) -> Self::Broker;

    fn corner(&self) -> Corner<Self::Broker> {
        Corner::new(self.connect())
    }
}

/// One test for each scenario, against the harness named.
macro_rules! conformance {
    ($harness:expr) => {
        crate::transport::conformance! { $harness;
            publishing: each_kind_of_exchange_routes_by_its_rule,
            publishing: verdicts_are_exact_with_one_in_seven_unroutable,
            publishing: a_missing_exchange_in_mid_batch_keeps_its_neighbours,
            publishing: a_full_queue_that_rejects_is_a_nack,
            publishing: a_message_id_that_occurs_twice_is_judged_by_its_route,
            publishing: an_invalid_message_is_poison_and_its_lane_lives_on,
            publishing: an_empty_batch_is_settled,
            publishing: a_lane_to_one_queue_reaches_it_and_nothing_else,
            publishing: a_reply_lane_reaches_the_queue_each_message_names,
            publishing: lanes_of_one_broker_publish_side_by_side,
            consuming: every_property_and_header_arrives_as_sent,
            consuming: a_lane_keeps_its_order,
            consuming: a_dropped_subscription_gives_back_what_it_held,
            consuming: a_requeued_delivery_comes_again_marked,
            consuming: one_answer_covers_all_that_came_before,
            sharing: prefetch_bounds_what_a_consumer_holds,
            sharing: what_waits_is_counted_after_what_was_sent,
            sharing: competing_consumers_share_a_queue,
            sharing: of_several_consumers_one_is_active_where_told_so,
            consuming: a_receive_given_up_loses_nothing,
            consuming: an_answer_after_the_subscription_is_an_error,
            consuming: a_deleted_queue_ends_its_subscription,
            consuming: a_missing_queue_cannot_be_subscribed,
            topology: declaring_twice_is_harmless_and_otherwise_a_mismatch,
            topology: binding_needs_both_ends,
            topology: deleting_what_is_missing_is_no_error,
            topology: a_full_queue_drops_its_oldest_where_told_so,
        }
    };
    ($harness:expr; $($area:ident: $scenario:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                support::bounded(crate::transport::$area::$scenario(&$harness)).await;
            }
        )+
    };
}
pub(crate) use conformance;
