//! There and back, and hostile bytes.

use proptest::collection::vec;
use proptest::prelude::*;
use protocol::frame::{Decoder, Frame, Kind, write};
use protocol::{admin, convert, handshake, v1};

use crate::any;

proptest! {
    #[test]
    fn every_message_arrives_as_it_was_sent(message in any::message()) {
        let bytes = convert::message_to_bytes(&message);
        prop_assert_eq!(convert::message_from_bytes(&bytes), Ok(message));
    }

    #[test]
    fn every_state_is_read_as_it_was_written(durable in any::durable()) {
        let bytes = convert::durable_to_bytes(&durable);
        prop_assert_eq!(convert::durable_from_bytes(&bytes), Ok(durable));
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = convert::message_from_bytes(&bytes);
        let _ = convert::durable_from_bytes(&bytes);
        let _ = postcard::from_bytes::<v1::Batch>(&bytes);
        let _ = handshake::Hello::from_bytes(&bytes);
        let _ = handshake::Welcome::from_bytes(&bytes);
        let _ = handshake::Refused::from_bytes(&bytes);
        let _ = admin::Request::from_bytes(&bytes);
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        while let Ok(Some(_)) = decoder.next_frame() {}
    }

    #[test]
    fn altered_state_is_never_a_panic(
        durable in any::durable(), at in any::<prop::sample::Index>(), to in any::<u8>()
    ) {
        let mut bytes = convert::durable_to_bytes(&durable);
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = convert::durable_from_bytes(&bytes);
    }

    #[test]
    fn frames_survive_any_cut(
        payloads in vec(vec(any::<u8>(), 0..50), 0..8), step in 1_usize..40
    ) {
        let mut stream = Vec::new();
        for payload in &payloads {
            write(Kind::Batch, payload, &mut stream).unwrap();
        }
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        for piece in stream.chunks(step) {
            decoder.push(piece);
            while let Some(Frame { kind, payload }) = decoder.next_frame().unwrap() {
                prop_assert_eq!(kind, Kind::Batch);
                found.push(payload);
            }
        }
        prop_assert_eq!(found, payloads);
    }
}

#[test]
fn a_frame_of_an_unknown_kind_is_passed_over() {
    let mut stream = vec![0, 0, 0, 5, 1, 200, b'n', b'e', b'w'];
    write(Kind::Ping, b"", &mut stream).unwrap();
    let mut decoder = Decoder::default();
    decoder.push(&stream);
    assert_eq!(decoder.next_frame(), Ok(Some(Frame { kind: Kind::Ping, payload: vec![] })));
    assert_eq!(decoder.next_frame(), Ok(None));
}

#[test]
fn senseless_lengths_and_versions_end_the_connection() {
    let error = |bytes: &[u8]| {
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        decoder.next_frame().unwrap_err()
    };
    assert!(error(b"GET / HTTP/1.1\r\n").to_string().contains("above the limit"));
    assert!(error(&[0, 0, 0, 1, 1]).to_string().contains("too short"));
    assert!(error(&[0, 0, 0, 2, 9, 1]).to_string().contains("version 9"));
    assert!(write(Kind::Batch, &vec![0; protocol::frame::LIMIT], &mut Vec::new()).is_err());
}
