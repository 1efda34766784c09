use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn any_message() -> impl Strategy<Value = Message> {
    let bytes = || vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    (any::<u128>(), option::of(".{0,40}"), ".{0,40}", any::<i64>(), option::of(bytes()), bytes()).prop_map(
        |(id, key, source, published_at, attributes, body)| Message {
            id: Uuid::from_u128(id),
            key,
            source,
            published_at: Instant(published_at),
            attributes,
            body,
        },
    )
}

fn encode(life: Life, base: u64, written_at: i64, messages: &[Message]) -> Vec<u8> {
    let mut bytes = b"what the buffer held before".to_vec();
    let mut builder = FrameBuilder::new(life, &mut bytes, base);
    messages.iter().for_each(|message| builder.push(message));
    builder.finish(written_at);
    bytes
}

fn decode(life: Life, base: u64, bytes: &[u8]) -> Result<(Header, Vec<Message>), Fault> {
    let header = header(life, &bytes[..HEADER_BYTES.min(bytes.len())])?.ok_or("zeroes")?;
    if header.base != base || header.frame_bytes() != bytes.len() as u64 {
        return Err("another place or length");
    }
    let whole = Bytes::copy_from_slice(&bytes[HEADER_BYTES..]);
    let mut at = 0;
    let mut messages = Vec::new();
    for offset in base..header.next() {
        if whole.len() - at < PREFIX_BYTES {
            return Err("no record");
        }
        let len = record_len(&whole[at..]);
        if len > (whole.len() - at) as u64 {
            return Err("a long record");
        }
        let one = whole.slice(at..at + len as usize);
        messages.push(record(life, &one, offset)?.message(&one)?);
        at += len as usize;
    }
    if at == whole.len() { Ok((header, messages)) } else { Err("bytes are left") }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_encoded_is_decoded(
        id: u128,
        base in 0u64..u64::MAX / 2,
        written_at: i64,
        messages in vec(any_message(), 1..6),
    ) {
        let life = Life::new(Uuid::from_u128(id));
        let bytes = encode(life, base, written_at, &messages);
        prop_assert_eq!(bytes.len(), HEADER_BYTES + messages.iter().map(record_bytes).sum::<usize>());
        let (header, decoded) = decode(life, base, &bytes).expect("it was encoded");
        prop_assert_eq!((header.written_at, header.count as usize), (written_at, messages.len()));
        prop_assert_eq!(decoded, messages);
    }

    #[test]
    fn no_changed_byte_passes(
        base in 0u64..1000,
        messages in vec(any_message(), 1..4),
        at: prop::sample::Index,
        change in 1u8..,
    ) {
        let life = Life::new(Uuid::from_u128(7));
        let mut bytes = encode(life, base, 0, &messages);
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        prop_assert!(decode(life, base, &bytes).is_err());
    }

    #[test]
    fn no_other_place_or_life_passes(base in 1u64..1000, messages in vec(any_message(), 1..4)) {
        let bytes = encode(Life::new(Uuid::from_u128(7)), base, 0, &messages);
        prop_assert!(decode(Life::new(Uuid::from_u128(7)), base - 1, &bytes).is_err());
        prop_assert!(decode(Life::new(Uuid::from_u128(8)), base, &bytes).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..300)) {
        let life = Life::new(Uuid::from_u128(7));
        let _ = decode(life, 0, &bytes);
        let _ = record(life, &bytes, 0);
    }
}
