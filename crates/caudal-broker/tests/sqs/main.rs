//! SNS and SQS against every rule of the brokers' conformance suite, and what is theirs alone, on two independent emulators.
//! Neither checks permissions, and AWS itself was not tried.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod aws;
mod fake;
mod holding;
mod refused;
mod shapes;

use std::sync::Arc;
use std::time::Duration;

use caudal_broker::RemoteConfig;
use caudal_broker::sqs::SqsBroker;
use caudal_core::ports::Broker;
use caudal_testkit::broker::Harness;
use caudal_testkit::emulator::Road;

use crate::aws::Client;

/// SNS takes 262,144 bytes with the attributes.
const BODY_MAX: usize = 200 * 1024;

fn config(url: &str) -> RemoteConfig {
    RemoteConfig { subscriptions: vec!["store".to_owned(), "audit".to_owned()], ..RemoteConfig::new(url) }
}

/// What two emulators have in common. `volume` is what each can bear. The road is this harness's own, so that cutting it harms
/// no other test.
fn harness(road: Road, options: &str, volume: u64) -> Harness {
    // A broker closes when its last poll has ended, and much is closed here.
    let url = road.url() + "&wait_seconds=1" + options;
    let client = Client::of(&url);
    let harness = Harness::new(move || {
        let config = config(&url);
        Box::pin(async move { Ok(Arc::new(SqsBroker::open(config).await?) as Arc<dyn Broker>) })
    });
    let road = Arc::new(road);
    harness
        .counts_attempts()
        .delays_nacks()
        .gives_back_within(Duration::from_secs(5))
        .body_max(BODY_MAX)
        .volume(volume)
        .crash(move || {
            // AWS forgets nothing, an emulator everything: only the road to it breaks.
            let road = road.clone();
            Box::pin(async move {
                road.cut();
                tokio::time::sleep(Duration::from_secs(1)).await;
                road.mend().unwrap();
            })
        })
        .foreign(move |topic, headers, body| {
            let client = client.clone();
            Box::pin(async move { drop(client.publish(&topic, headers, &body).await) })
        })
}

mod moto_standard {
    caudal_testkit::broker_conformance!(super::harness(super::road_to_moto(), "", 90).unordered());
}

mod moto_fifo {
    caudal_testkit::broker_conformance!(super::harness(super::road_to_moto(), "&fifo=true", 90).locks_keys());
}

mod localstack_standard {
    caudal_testkit::broker_conformance!(super::harness(super::road_to_localstack(), "", 600).unordered());
}

mod localstack_fifo {
    caudal_testkit::broker_conformance!(super::harness(super::road_to_localstack(), "&fifo=true", 300).locks_keys());
}

fn road_to_moto() -> Road {
    caudal_testkit::moto::shared().unwrap().road().unwrap()
}

fn road_to_localstack() -> Road {
    caudal_testkit::localstack::shared().unwrap().road().unwrap()
}

/// What is SNS's and SQS's alone, on one emulator.
macro_rules! own_rules {
    ($emulator:ident, $($part:ident :: $rule:ident,)*) => {
        mod $emulator {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $rule() {
                    crate::$part::$rule(caudal_testkit::$emulator::shared().unwrap().road().unwrap()).await;
                }
            )*
        }
    };
    ($($emulator:ident),*) => {
        $(
            own_rules!($emulator,
                shapes::understands_envelopes_and_raw_delivery,
                shapes::a_broken_envelope_is_a_fault,
                shapes::works_on_a_queue_alone,
                shapes::makes_what_is_needed_and_no_more,
                shapes::says_what_is_missing,
                shapes::says_how_large_a_message_may_be,
                holding::keeps_hidden_what_is_out,
                holding::keeps_hidden_what_was_fetched_ahead,
                holding::a_killed_consumer_holds_nothing_for_long,
                holding::two_consumers_share_a_queue,
                holding::a_group_waits_for_its_first,
                holding::a_group_does_not_overtake_itself,
                holding::groups_keep_their_order_under_load,
            );
        )*
    };
}

own_rules!(moto, localstack);
