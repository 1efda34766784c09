//! Confirmations in DynamoDB: the conformance suite of every store, and what is this one's alone. All of it on an emulator
//! (moto); AWS itself was not tried.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod dynamodb;

use dynamodb::harness::{Dynamo, record, spec};

/// A single shard, so that one claim finds all there is; what many shards do is in `dynamodb::shards`.
async fn open() -> Dynamo {
    Dynamo::open(1).await
}

// All but `promotion_is_bounded`: what is due can be claimed here without being promoted, which
// `dynamodb::shards::what_is_due_needs_no_promotion` holds.
caudal_testkit::confirm_conformance!(open;
    claiming: lanes_keep_their_numbers, items_come_oldest_first_and_whole, nothing_is_claimed_twice,
        the_watermark_skips_only_what_is_taken, paused_lanes_give_nothing, calls_begin_durably,
        leases_are_prolonged, workers_are_counted, another_process_is_woken;
    settling: every_mark_leads_to_its_state, settling_again_changes_nothing, the_first_fact_stands,
        due_items_come_back_and_no_sooner, the_first_time_of_sending_is_kept,
        attempts_are_counted, an_end_loses_nothing, many_leases_settle_at_once, odd_details_are_kept;
    lapsing: uncalled_items_are_pending_again, called_items_are_in_doubt, crashes_lead_to_caution,
        only_what_was_not_marked_comes_back, late_facts_beat_every_open_state, late_facts_beat_a_new_lease,
        late_marks_are_refused, a_released_item_is_not_doubled;
    operating: only_what_was_surely_not_sent_is_voided, dead_and_held_are_redriven, people_resolve,
        numbers_add_up, attempts_that_failed_are_listed, facts_about_the_void_contradict;
    auditing: an_orderly_store_is_sound, what_is_lost_is_named, what_is_double_is_named, what_is_stray_is_named, arrivals_are_counted_by_the_hour;
    mixing: random_work_conserves_everything, concurrent_workers_conserve_everything;
);
