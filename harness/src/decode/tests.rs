//! Whole inputs, decoded.

use std::time::Duration;

use backstop_mock::capture::Capture as _;
use backstop_mock::transcript::Direction;
use proptest::prelude::*;

use super::*;
use crate::capture::CaptureWriter;

fn decoded(input: &[u8], from: Option<From>) -> String {
    let mut out = Vec::new();
    decode(input, from, &mut out).expect("a readable input");
    String::from_utf8(out).expect("UTF-8")
}

fn refused(input: &[u8]) -> String {
    decode(input, None, &mut Vec::new()).expect_err("it is refused").to_string()
}

/// A message of a server or a client.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("short");
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

#[test]
fn two_directions_in_hexadecimal() {
    let text = "# a session that begins in the middle\n\
                < 51 00000014 4944454e544946595f53595354454d 00\n\
                > 430000000b53454c45435400 5a 00000005 49\n\
                ... 3 messages\n\
                < 5800000004\n";
    insta::assert_snapshot!(decoded(text.as_bytes(), None));
}

#[test]
fn a_backup_of_one_direction_before_15_and_since() {
    let header = backstop_protocol::base_backup::tar::MemberHeader {
        name: b"PG_VERSION".to_vec(),
        kind: backstop_protocol::base_backup::tar::MemberKind::File,
        mode: 0o600,
        uid: 0,
        gid: 0,
        size: 3,
        mtime: 0,
    };
    let mut archive = header.encode().expect("a header").to_vec();
    archive.extend(b"18\n");
    archive.resize(1024, 0);
    let d = |data: &[u8]| message(b'd', data);
    let copy_out = message(b'H', &[0, 0, 0]);
    let since = [
        copy_out.clone(),
        d(b"nbase.tar\0\0"),
        d(&[b"d", &archive[..514]].concat()),
        d(&[b"d", &archive[514..]].concat()),
        d(b"p\0\0\0\0\0\0\x04\0"),
        d(b"m"),
        d(b"d{}"),
        message(b'c', b""),
    ];
    insta::assert_snapshot!("since", decoded(&since.concat(), None));
    let rows = [
        message(b'T', b"\0\x01spcoid\0\0\0\0\0\0\0\0\0\0\x1a\0\x04\xff\xff\xff\xff\0\0"),
        message(b'D', b"\0\x01\0\0\0\x0516391"),
        message(b'D', b"\0\x01\xff\xff\xff\xff"),
        message(b'C', b"SELECT\0"),
    ];
    let before = [
        rows.concat(),
        copy_out.clone(),
        d(b"this is no archive"),
        message(b'c', b""),
        copy_out.clone(),
        d(&archive[..514]),
        message(b'c', b""),
        copy_out,
        d(b"{}"),
        message(b'c', b""),
    ];
    insta::assert_snapshot!("before", decoded(&before.concat(), Some(From::Server)));
}

#[test]
fn garbage_is_understood_up_to_its_first_byte() {
    let mut server = message(b'Z', b"I");
    server.extend(b"GET / HTTP/1.1\r\n");
    insta::assert_snapshot!(decoded(&server, None));
    // A length that cannot be, a body that ends too early, a cut message, TLS, protocol 2.
    let shown = [
        decoded(b"R\xff\xff\xff\xff", None),
        decoded(&message(b'Z', b""), None),
        decoded(b"Z\0\0\0\x05", None),
        decoded(b"<0000000804d2162f\n>53\n<160301 ff\n>160303\n", None),
        decoded(b"EFATAL:  no PostgreSQL user name specified in startup packet\n\0", None),
        decoded(b"", None),
        decoded(b"\0\0\0\0rest", None),
    ];
    insta::assert_snapshot!("calm", shown.join("--\n"));
}

#[test]
fn passwords_are_not_shown() {
    let shown = decoded(&message(b'p', b"secret\0"), Some(From::Client));
    assert!(shown.contains("7 bytes, not shown") && !shown.contains("secret"), "{shown}");
}

#[test]
fn broken_inputs_are_named() {
    assert_eq!(refused(b"> 5a00 00zz\n"), "line 1, column 10: \"z\" is no hexadecimal digit");
    assert_eq!(refused(b"> 5a\n< 5\n"), "line 2, column 4: half a byte at the end of the line");
    let mut wifi = b"\xd4\xc3\xb2\xa1\x02\0\x04\0\0\0\0\0\0\0\0\0\xff\xff\0\0\x69\0\0\0".to_vec();
    wifi.extend([0; 8]);
    wifi.extend([1, 0, 0, 0, 1, 0, 0, 0, 7]);
    assert_eq!(refused(&wifi), "packets of link type 105 are not known here: capture on a loopback interface");
}

#[test]
fn a_capture_of_ours_is_read_back() {
    let mut writer = CaptureWriter::new(Vec::new(), 40).expect("a header");
    let at = Duration::from_millis(1500);
    writer.bytes(Duration::ZERO, 1, Direction::Received, b"\0\0\0\x08\x04\xd2\x16\x2f");
    writer.bytes(at, 1, Direction::Sent, b"N");
    writer.bytes(at, 2, Direction::Received, b"\0\0\0\x08\x04\xd2\x16\x2f");
    writer.end(2);
    writer.bytes(at, 1, Direction::Sent, &message(b'Z', b"I"));
    // More than the capture may hold.
    writer.bytes(at, 1, Direction::Sent, &message(b'C', &[b'x'; 40]));
    writer.bytes(at, 1, Direction::Sent, &message(b'Z', b"I"));
    writer.end(1);
    let file = writer.into_inner().expect("a whole file");
    insta::assert_snapshot!(decoded(&file, None));
}

proptest! {
    #[test]
    fn any_bytes_are_safe(input: Vec<u8>, client: bool) {
        let from = if client { From::Client } else { From::Server };
        let _ = decode(input.as_slice(), Some(from), &mut Vec::new());
        let _ = decode(input.as_slice(), None, &mut Vec::new());
    }

    #[test]
    fn any_messages_are_safe(messages: Vec<(prop::sample::Index, Vec<u8>, bool)>) {
        const TAGS: &[u8] = b"RSKZTDCENdcHWGvQpfX";
        let mut conversation = Conversation::default();
        for (tag, body, client) in messages {
            let from = if client { From::Client } else { From::Server };
            conversation.push(None, from, &message(TAGS[tag.index(TAGS.len())], &body));
        }
        conversation.finish();
    }

    #[test]
    fn any_capture_is_safe(packets: Vec<Vec<u8>>, damage: prop::sample::Index, byte: u8) {
        let mut writer = CaptureWriter::new(Vec::new(), u64::MAX).expect("a header");
        for (index, packet) in packets.iter().enumerate() {
            let direction = if index % 2 == 0 { Direction::Received } else { Direction::Sent };
            writer.bytes(Duration::ZERO, 1, direction, packet);
        }
        let mut file = writer.into_inner().expect("a whole file");
        let place = damage.index(file.len());
        file[place] = byte;
        let _ = decode(file.as_slice(), None, &mut Vec::new());
    }
}
