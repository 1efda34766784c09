//! Dead letters, redrive, repair, accounting, drift.

use bytes::Bytes;
use caudal_core::dead_letter::{DeadLetter, DeadLetterState};
use caudal_core::message::Message;
use caudal_core::ports::{AppendBatch, DriftNote, OnBadRow};
use caudal_core::rejection::{Code, Rejection};
use caudal_core::topic::Identity;
use uuid::Uuid;

use super::{Fixture, at, batch, ids, rows_in, small, topic};

fn letter(name: &str, id: Uuid, body: &[u8]) -> DeadLetter {
    let message = Message {
        id,
        key: Some("k".into()),
        source: "test".into(),
        published_at: at("2024-01-02T03:04:05.678Z"),
        attributes: Some(Bytes::from_static(b"{\"type\":\"x\"}")),
        body: Bytes::copy_from_slice(body),
    };
    let rejection = Rejection::new(Code::Schema, "/n", "n is not a number");
    DeadLetter::new(&Identity::of(&topic(name)), message, rejection)
}

fn only_dead(name: &str, dead: Vec<DeadLetter>) -> AppendBatch {
    let mut batch = AppendBatch::new(small(name, false), topic(name), OnBadRow::DeadLetter);
    batch.dead = dead;
    batch
}

pub async fn dead_letters_are_kept_once(fx: Fixture) {
    fx.store.ensure_table(&small("kept", false)).await.expect("table");
    let letter = letter("kept", Uuid::now_v7(), b"{\"n\":\"x\"}");
    let first = fx.store.append(only_dead("kept", vec![letter.clone(), letter.clone()]).into()).await.expect("append");
    assert_eq!((first.tally.dead, first.tally.duplicate), (1, 1));
    let second = fx.store.append(only_dead("kept", vec![letter.clone()]).into()).await.expect("append");
    assert_eq!((second.tally.dead, second.tally.duplicate, second.tally.unaccounted(0)), (0, 1, 0));
    let kept = fx.store.dead_letter(letter.id).await.expect("dead letter").expect("kept");
    assert_eq!(kept.message.body, letter.message.body);
    assert_eq!((kept.message.id, kept.message.published_at), (letter.message.id, letter.message.published_at));
    assert_eq!((kept.reason.as_str(), kept.pointer.as_str(), kept.topic.as_str()), ("schema", "/n", "kept"));
    assert_eq!((kept.state, kept.attempts, kept.settled_at), (DeadLetterState::Dead, 0, None));
    assert!(fx.store.dead_letter(Uuid::now_v7()).await.expect("dead letter").is_none());
}

/// Nothing a producer sends may keep a dead letter from being kept: it would block its topic for ever.
pub async fn odd_dead_letters_are_kept(fx: Fixture) {
    fx.store.ensure_table(&small("odd", false)).await.expect("table");
    let bodies: [&[u8]; 4] = [b"", b"\0\0", b"\xff\xfe", b"{\"a\":\"\\u0000\"}"];
    let mut letters: Vec<DeadLetter> = bodies.iter().map(|body| letter("odd", Uuid::now_v7(), body)).collect();
    letters[0].message.key = Some("a\0b".into());
    letters[1].message.attributes = Some(Bytes::from_static(b"{\"a\":\"\\u0000\"}"));
    letters[2].message.attributes = Some(Bytes::from_static(b"\xff"));
    letters[3].rejection.detail = "with \0 in it".into();
    let appended = fx.store.append(only_dead("odd", letters.clone()).into()).await.expect("append");
    assert_eq!(appended.tally.dead, 4);
    for letter in letters {
        let kept = fx.store.dead_letter(letter.id).await.expect("dead letter").expect("kept");
        assert_eq!(kept.message.body, letter.message.body);
    }
}

pub async fn redrive_settles(fx: Fixture) {
    let table = small("redrive", false);
    fx.store.ensure_table(&table).await.expect("table");
    let dead = letter("redrive", Uuid::now_v7(), b"bad");
    fx.store.append(only_dead("redrive", vec![dead.clone()]).into()).await.expect("append");

    fx.store.redrive_failed(dead.id, "schema", "still bad", "/t").await.expect("failed redrive");
    let kept = fx.store.dead_letter(dead.id).await.expect("dead letter").expect("kept");
    assert_eq!((kept.attempts, kept.detail.as_str(), kept.state), (1, "still bad", DeadLetterState::Dead));

    let mut repaired = batch(&table, OnBadRow::Report, &[(dead.message.id, 1)]);
    repaired.redrives = Some(dead.id);
    fx.store.append(repaired.clone().into()).await.expect("append");
    let kept = fx.store.dead_letter(dead.id).await.expect("dead letter").expect("kept");
    assert_eq!((kept.state, kept.attempts), (DeadLetterState::Redriven, 2));
    assert_eq!(kept.outcome.as_deref(), Some("stored"));
    assert!(kept.settled_at.is_some());

    // The same redrive again (its first answer was lost) changes nothing.
    assert_eq!(fx.store.append(repaired.into()).await.expect("append").tally.duplicate, 1);
    let again = fx.store.dead_letter(dead.id).await.expect("dead letter").expect("kept");
    assert_eq!((again.attempts, again.outcome.as_deref()), (2, Some("stored")));

    let other = letter("redrive", dead.message.id, b"conflicting");
    fx.store.append(only_dead("redrive", vec![other.clone()]).into()).await.expect("append");
    let mut conflicting = batch(&table, OnBadRow::Report, &[(dead.message.id, 2)]);
    conflicting.redrives = Some(other.id);
    assert_eq!(fx.store.append(conflicting.into()).await.expect("append").tally.rejected, 1);
    let kept = fx.store.dead_letter(other.id).await.expect("dead letter").expect("kept");
    assert_eq!((kept.state, kept.attempts), (DeadLetterState::Dead, 0), "a bad row settles nothing");
    assert_eq!(fx.store.dead_letters_of(dead.message.id).await.expect("dead letters").len(), 2);
}

pub async fn repair_replaces_payload(fx: Fixture) {
    fx.store.ensure_table(&small("repair", false)).await.expect("table");
    let dead = letter("repair", Uuid::now_v7(), b"bad");
    fx.store.append(only_dead("repair", vec![dead.clone()]).into()).await.expect("append");
    assert!(fx.store.repair(dead.id, Bytes::from_static(b"\xffgood")).await.expect("repair"));
    let kept = fx.store.dead_letter(dead.id).await.expect("dead letter").expect("kept");
    assert_eq!(&*kept.message.body, b"\xffgood");
    assert!(!fx.store.repair(Uuid::now_v7(), Bytes::new()).await.expect("repair"));
}

pub async fn tally_is_conserved(fx: Fixture) {
    let table = small("tally", false);
    fx.store.ensure_table(&table).await.expect("table");
    (fx.refuse_negative)("tally".into(), "n".into()).await;
    let keys = ids(40);
    let mut sum = caudal_core::outcome::Tally::default();
    for round in 0..20i64 {
        let policy = if round % 2 == 0 { OnBadRow::Report } else { OnBadRow::DeadLetter };
        let rows: Vec<(Uuid, i64)> =
            (0..10).map(|i| (keys[((round * 7 + i * 3) % 40) as usize], (i % 4) - 1)).collect();
        let mut batch = batch(&table, policy, &rows);
        batch.rejected = 2;
        batch.dead = vec![letter("tally", keys[round as usize], &[round as u8 / 3])];
        let appended = fx.store.append(batch.into()).await.expect("append");
        assert_eq!((appended.tally.accepted, appended.tally.unaccounted(0)), (13, 0));
        sum += appended.tally;
    }
    assert_eq!(fx.store.tally(&topic("tally")).await.expect("tally"), sum);
    assert_eq!(rows_in(&*fx.store, &table).await, sum.stored);
    assert!(sum.stored > 0 && sum.duplicate > 0 && sum.rejected > 0 && sum.dead > 0, "all kinds seen: {sum:?}");
    assert_eq!(fx.store.tally(&topic("unheard-of")).await.expect("tally").accepted, 0);
}

pub async fn drift_adds_up(fx: Fixture) {
    fx.store.ensure_table(&small("drift", false)).await.expect("table");
    let note = |field: &str, ty: &str, count| DriftNote { field: field.into(), json_type: ty.into(), count };
    for _ in 0..3 {
        let mut batch = batch(&small("drift", false), OnBadRow::Report, &[(Uuid::now_v7(), 1)]);
        batch.drift =
            vec![note("b", "string", 2), note("a", "number", 1), note("b", "number", 1), note("b", "string", 3)];
        fx.store.append(batch.into()).await.expect("append");
    }
    let reports = fx.store.drift(&topic("drift")).await.expect("drift");
    let seen: Vec<DriftNote> = reports.iter().map(|r| r.note.clone()).collect();
    assert_eq!(seen, [note("a", "number", 3), note("b", "number", 3), note("b", "string", 15)]);
    assert!(reports.iter().all(|r| r.first_seen <= r.last_seen));
}
