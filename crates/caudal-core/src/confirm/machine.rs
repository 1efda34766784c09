//! The state machine of one transaction: from what is known to what is done next. Pure: time and chance are arguments.
//!
//! ```text
//! pending ─claim─► leased ─send─► calling ─► confirmed | rejected | retry | doubt | held | dead
//! leased, lease expired  ─► pending            nothing was called: no attempt is spent
//! calling, lease expired ─► doubt              something may have been
//! retry, due             ─► pending
//! doubt, due             ─► asked for, or sent again under the same key while the endpoint remembers it; else held
//! pending, retry, held, dead ─► void           unless it may have been done
//! dead                   ─► pending            by redrive, under the same key
//! any open state, dead   ─► confirmed | rejected   by a fact, however late
//! ```

use std::time::Duration;

use super::answer::{Answer, Verdict};
use super::policy::Policy;
use super::{Item, Mark, State};

/// What to do with an item that was just claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask the endpoint to do it.
    Call,
    /// Ask the endpoint whether it did it.
    Probe,
    /// Nothing is asked: this is how it goes on.
    Mark(Mark),
}

/// The first thing to do for a claimed item.
pub fn step(policy: &Policy, item: &Item) -> Step {
    if item.crashes >= policy.crashes_max {
        let detail = format!("{} workers died while they were calling for it", item.crashes);
        return Step::Mark(Mark::Dead { maybe_done: item.doubt, code: None, detail });
    }
    if item.doubt {
        return step_in_doubt(policy, item);
    }
    if policy.deadline.is_some_and(|deadline| item.age() > deadline) {
        let detail = format!("its deadline has passed: it waited for {} s", item.age().as_secs());
        return Step::Mark(Mark::Dead { maybe_done: false, code: None, detail });
    }
    Step::Call
}

fn step_in_doubt(policy: &Policy, item: &Item) -> Step {
    if policy.repeat.probe {
        return Step::Probe;
    }
    // A crash may have left no time of sending behind; the lease's own age is then the best there is, and it is old.
    let sent_ago = item.sent_ago().unwrap_or_else(|| item.age());
    if policy.repeat.may_resend(sent_ago) {
        return Step::Call;
    }
    let detail = match policy.repeat.key_retention {
        Some(_) => "it may have been done, and the endpoint may have forgotten its key by now",
        None => "it may have been done, the endpoint honours no key and cannot be asked",
    };
    Step::Mark(Mark::Held { maybe_done: true, code: None, detail: detail.to_owned() })
}

/// What to write down after a call. `random` in 0..1.
pub fn after_call(policy: &Policy, item: &Item, answer: &Answer, verdict: Verdict, random: f64) -> Mark {
    let attempt = item.attempts + 1;
    let sent = !matches!(answer, Answer::NotSent(_) | Answer::Blocked(_));
    let (code, detail) = (answer.code(), answer.detail());
    let pause = |at_least| policy.backoff.pause(attempt, random, at_least);
    let spent = attempt >= policy.attempts_max;
    match verdict {
        Verdict::Fact(fact) => Mark::Fact { fact, code, detail },
        // Whoever answered may have done something first.
        Verdict::Hold => Mark::Held { maybe_done: item.doubt || sent, code, detail: unexpected(code, &detail) },
        // Sent again in doubt and not done this time says nothing about the time before.
        Verdict::NotDone { .. } if item.doubt => doubt(policy, attempt, pause(None), code, detail),
        Verdict::NotDone { .. } if spent => Mark::Dead { maybe_done: false, code, detail: given_up(attempt, &detail) },
        Verdict::NotDone { retry_after } => Mark::Retry { after: pause(retry_after), sent, code, detail },
        Verdict::InProgress { retry_after } => doubt(policy, attempt, pause(retry_after), code, detail),
        Verdict::NotFound | Verdict::Doubt => doubt(policy, attempt, pause(None), code, detail),
    }
}

/// What to write down after a probe.
pub fn after_probe(policy: &Policy, item: &Item, answer: &Answer, verdict: Verdict, random: f64) -> Mark {
    let attempt = item.attempts + 1;
    let (code, detail) = (answer.code(), answer.detail());
    let pause = |at_least| policy.backoff.pause(attempt, random, at_least);
    match verdict {
        Verdict::Fact(fact) => Mark::Fact { fact, code, detail },
        Verdict::Hold => Mark::Held { maybe_done: true, code, detail },
        Verdict::NotFound if attempt >= policy.attempts_max => {
            Mark::Dead { maybe_done: false, code, detail: given_up(attempt, "the endpoint does not know it") }
        }
        // What is under way there may still arrive; the pause is for that.
        Verdict::NotFound => {
            Mark::Retry { after: pause(None), sent: true, code, detail: "the endpoint does not know it".into() }
        }
        Verdict::InProgress { retry_after } | Verdict::NotDone { retry_after } => {
            doubt(policy, attempt, pause(retry_after), code, detail)
        }
        Verdict::Doubt => doubt(policy, attempt, pause(None), code, detail),
    }
}

fn doubt(policy: &Policy, attempt: u32, after: Duration, code: Option<u16>, detail: String) -> Mark {
    match attempt >= policy.attempts_max {
        // Never dead: it may have been done, which only a person can find out now.
        true => Mark::Held { maybe_done: true, code, detail: given_up(attempt, &detail) },
        false => Mark::Doubt { after, code, detail },
    }
}

fn given_up(attempts: u32, detail: &str) -> String {
    format!("{attempts} attempts: {detail}")
}

fn unexpected(code: Option<u16>, detail: &str) -> String {
    match code {
        Some(422) => format!("422: the key was used before with another request: {detail}"),
        Some(code @ 300..=399) => format!("{code}: redirects are not followed"),
        Some(code) => {
            format!("{code}, which is declared neither as success, nor as rejection, nor for retry: {detail}")
        }
        None => detail.to_owned(),
    }
}

/// Whether a transaction may go from one state to another, by whoever.
pub fn may(from: State, to: State) -> bool {
    use State::*;
    match from {
        Confirmed | Rejected | Void => false,
        Pending => matches!(to, Leased | Held | Void | Dead | Confirmed | Rejected),
        Leased => matches!(to, Pending | Calling | Held | Dead | Confirmed | Rejected),
        Calling => matches!(to, Confirmed | Rejected | Retry | Doubt | Held | Dead | Pending),
        Retry => matches!(to, Pending | Held | Void | Confirmed | Rejected),
        Doubt => matches!(to, Leased | Held | Confirmed | Rejected | Dead),
        Held => matches!(to, Pending | Doubt | Void | Confirmed | Rejected),
        Dead => matches!(to, Pending | Doubt | Confirmed | Rejected),
    }
}

/// Why a transaction in this state cannot be called off; `None` when it can.
pub fn void_refusal(state: State, maybe_done: bool) -> Option<&'static str> {
    match state {
        State::Pending | State::Retry | State::Held | State::Dead if !maybe_done => None,
        State::Void => Some("it is void already"),
        State::Confirmed => Some("the endpoint confirmed it"),
        State::Rejected => Some("the endpoint rejected it, which is an end of its own"),
        State::Leased | State::Calling => Some("it may be being sent right now: wait until it has settled"),
        _ => Some("it may have been done: find out at the endpoint, then `caudal confirm resolve` records what it did"),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::super::policy::Repeat;
    use super::super::{Fact, Rank};
    use super::*;
    use crate::time::Instant;

    fn item() -> Item {
        Item {
            id: Uuid::nil(),
            attempts: 0,
            crashes: 0,
            doubt: false,
            since: Instant(0),
            first_sent: None,
            claimed: Instant(10_000_000),
            record: Bytes::from_static(b"{}"),
        }
    }

    fn in_doubt(sent_secs_ago: i64) -> Item {
        let first_sent = Some(Instant(10_000_000 - sent_secs_ago * 1_000_000));
        Item { doubt: true, attempts: 1, first_sent, ..item() }
    }

    fn policy(probe: bool, retention: Option<u64>) -> Policy {
        let repeat = Repeat { probe, key_retention: retention.map(Duration::from_secs) };
        Policy { repeat, ..Policy::default() }
    }

    #[test]
    fn doubt_is_probed_resent_or_held() {
        assert_eq!(step(&policy(true, None), &in_doubt(5)), Step::Probe);
        assert_eq!(step(&policy(false, Some(100)), &in_doubt(5)), Step::Call);
        for (policy, item) in [(policy(false, Some(5)), in_doubt(5)), (policy(false, None), in_doubt(0))] {
            assert!(matches!(step(&policy, &item), Step::Mark(Mark::Held { maybe_done: true, .. })));
        }
    }

    /// A batch may wait for the rate's sake until the endpoint has forgotten the key.
    #[test]
    fn what_waited_too_long_after_its_claim_is_not_sent_again() {
        let policy = policy(false, Some(100));
        assert_eq!(step(&policy, &in_doubt(5).later(Duration::from_secs(80))), Step::Call);
        let waited = in_doubt(5).later(Duration::from_secs(90));
        assert!(matches!(step(&policy, &waited), Step::Mark(Mark::Held { maybe_done: true, .. })));
    }

    #[test]
    fn crashes_and_deadlines_end_in_dead() {
        let poison = Item { crashes: 3, ..in_doubt(1) };
        assert!(matches!(step(&policy(true, None), &poison), Step::Mark(Mark::Dead { maybe_done: true, .. })));
        let late = Policy { deadline: Some(Duration::from_secs(9)), ..Policy::default() };
        assert!(matches!(step(&late, &item()), Step::Mark(Mark::Dead { maybe_done: false, .. })));
        assert_eq!(step(&Policy { deadline: Some(Duration::from_secs(10)), ..late }, &item()), Step::Call);
    }

    #[test]
    fn an_unknown_answer_is_doubt_and_never_dead() {
        let policy = policy(false, Some(100));
        let unknown = Answer::Unknown("timeout".into());
        let mark = |attempts| after_call(&policy, &Item { attempts, ..item() }, &unknown, Verdict::Doubt, 0.5);
        assert_eq!(mark(0).state(), State::Doubt);
        assert_eq!(mark(policy.attempts_max - 1).state(), State::Held);
    }

    #[test]
    fn what_was_not_done_is_tried_until_attempts_are_spent() {
        let policy = Policy { attempts_max: 3, ..Policy::default() };
        let refused = Answer::NotSent("connection refused".into());
        let not_done = Verdict::NotDone { retry_after: None };
        let mark = |attempts| after_call(&policy, &Item { attempts, ..item() }, &refused, not_done, 0.5);
        assert!(matches!(mark(1), Mark::Retry { sent: false, .. }));
        assert!(matches!(mark(2), Mark::Dead { maybe_done: false, .. }));
    }

    #[test]
    fn a_refusal_to_repeat_says_nothing_about_the_first_time() {
        let answer = Answer::Status { code: 429, retry_after: None, body: Bytes::new() };
        let verdict = Verdict::NotDone { retry_after: None };
        assert_eq!(after_call(&policy(false, Some(100)), &in_doubt(1), &answer, verdict, 0.5).state(), State::Doubt);
    }

    #[test]
    fn a_probe_that_finds_nothing_leads_to_another_call() {
        let policy = policy(true, None);
        let answer = Answer::Status { code: 404, retry_after: None, body: Bytes::new() };
        let mark = after_probe(&policy, &in_doubt(1), &answer, Verdict::NotFound, 0.5);
        assert!(matches!(mark, Mark::Retry { sent: true, .. }), "{mark:?}");
    }

    #[test]
    fn outcomes_are_never_left() {
        for from in State::ALL.into_iter().filter(|state| state.is_outcome()) {
            assert!(State::ALL.into_iter().all(|to| !may(from, to)), "{from:?}");
        }
        for from in State::ALL.into_iter().filter(|state| !state.is_outcome()) {
            assert!(may(from, State::Confirmed) && may(from, State::Rejected), "facts beat {from:?}");
        }
    }

    #[test]
    fn only_what_was_surely_not_sent_can_be_called_off() {
        for state in State::ALL {
            let allowed = void_refusal(state, false).is_none();
            assert_eq!(
                allowed,
                matches!(state, State::Pending | State::Retry | State::Held | State::Dead),
                "{state:?}"
            );
            assert!(void_refusal(state, true).is_some(), "{state:?}");
        }
    }

    #[test]
    fn marks_lead_where_the_machine_allows() {
        let sent = |detail: &str| detail.to_owned();
        let marks = [
            Mark::Fact { fact: Fact::Confirmed, code: None, detail: sent("") },
            Mark::Fact { fact: Fact::Rejected, code: None, detail: sent("") },
            Mark::Retry { after: Duration::ZERO, sent: true, code: None, detail: sent("") },
            Mark::Doubt { after: Duration::ZERO, code: None, detail: sent("") },
            Mark::Held { maybe_done: true, code: None, detail: sent("") },
            Mark::Dead { maybe_done: true, code: None, detail: sent("") },
            Mark::Release,
        ];
        assert!(marks.iter().all(|mark| may(State::Calling, mark.state())));
        assert_eq!([0, 1, 2, 9].map(Rank::of), [Rank::Usual, Rank::Suspect, Rank::Alone, Rank::Alone]);
    }
}
