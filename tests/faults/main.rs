//! One file per fault, named for what holds in spite of it. The listing of this folder is the list
//! of what is promised.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod a_bad_message_holds_only_itself;
mod a_broker_that_cannot_prove_who_it_is_is_refused;
mod a_consumer_that_dies_between_commit_and_ack_applies_once;
mod a_frozen_relay_that_wakes_up_writes_and_sends_nothing;
mod a_lost_connection_during_commit_is_decided_by_the_row;
mod a_panicking_handler_is_parked_and_the_process_lives;
mod a_relay_killed_at_any_moment_loses_nothing;
mod a_relay_killed_between_read_and_advance_only_repeats;
mod a_relay_told_to_stop_leaves_no_doubt_behind;
mod a_wrong_start_names_cause_and_remedy_and_no_password;
mod cut_connections_lose_nothing_and_hold_nothing;
mod deadlocked_and_serialization_failures_are_retried_whole;
mod five_processes_migrate_an_empty_database_at_once;
mod no_committed_row_is_skipped_or_read_twice;
mod of_two_relays_one_works_and_the_other_takes_over;
mod processes_killed_on_one_sqlite_file_lose_nothing;
mod the_same_operation_delivered_100_times_by_8_consumers_takes_effect_once;
mod thirty_takeovers_under_load_lose_nothing;
mod undecodable_unknown_and_foreign_messages_are_parked_not_lost;
