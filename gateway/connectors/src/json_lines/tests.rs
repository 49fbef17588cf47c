use proptest::prelude::*;

use super::*;
use crate::arbitrary;

fn origin() -> Origin {
    Origin { source: "file:in".to_owned(), kind: "line".to_owned() }
}

fn all(input: &[u8], max_line_bytes: usize, max: usize) -> Vec<Line> {
    let mut lines = Lines::new(input, 0, max_line_bytes);
    let mut found = Vec::new();
    loop {
        let (some, at_end) = lines.read(max).expect("a slice");
        assert!(some.len() <= max);
        found.extend(some);
        if at_end {
            found.extend(lines.take_unterminated());
            assert_eq!(lines.position(), input.len() as u64);
            return found;
        }
    }
}

fn line(bytes: &'static [u8]) -> Line {
    Line { start: 0, end: bytes.len() as u64, bytes: Bytes::from_static(bytes), whole_bytes: None }
}

#[test]
fn a_body_is_written_on_one_line_with_its_numbers_as_they_were() {
    let write =
        |body: &[u8]| String::from_utf8(encode(&Message::new("s", "t", body.to_vec()), Format::Body)).expect("UTF-8");
    assert_eq!(
        write(b"{\n \"a\" : 1.10,\n\"b\": 12345678901234567890123 }"),
        "{\"a\":1.10,\"b\":12345678901234567890123}\n"
    );
    assert_eq!(write(b"two\nlines"), "\"two\\nlines\"\n");
    assert_eq!(write(b""), "\"\"\n");
    assert_eq!(write(b"\xff\x00"), "{\"data_base64\":\"/wA=\"}\n");
}

#[test]
fn lines_end_with_any_line_break_and_blank_ones_are_skipped() {
    let lines = all(b"one\r\n\n  \ntwo\nthree", 100, 10);
    let found: Vec<(u64, u64, &[u8])> = lines.iter().map(|line| (line.start, line.end, &*line.bytes)).collect();
    assert_eq!(found, [(0, 5, &b"one"[..]), (9, 13, b"two"), (13, 18, b"three")]);
}

#[test]
fn a_line_that_is_too_long_keeps_its_beginning_and_spoils_no_other() {
    let long = [&b"a\n"[..], &vec![b'x'; 200_000], b"\nb\n", &[b'y'; 101], b"\n", &[b'z'; 100], b"\r\n"].concat();
    let lines = all(&long, 100, 10);
    let found: Vec<(usize, Option<u64>)> = lines.iter().map(|line| (line.bytes.len(), line.whole_bytes)).collect();
    assert_eq!(found, [(1, None), (100, Some(200_000)), (1, None), (100, Some(101)), (100, None)]);
    let message = decode(lines.into_iter().nth(1).expect("a line"), Format::Event, &origin(), "1".to_owned());
    assert!(message.headers.text(PROBLEM_HEADER).expect("a problem").contains("200000 bytes"));
}

#[test]
fn a_line_that_is_no_event_becomes_a_message_that_says_so() {
    for bytes in [&b"{\"a\":1}"[..], b"\xff\xfe", b"{"] {
        let message = decode(line(bytes), Format::Event, &origin(), "7".to_owned());
        assert_eq!(message.body.bytes(), bytes);
        assert_eq!(&*message.id, "7");
        assert!(message.headers.text(PROBLEM_HEADER).expect("a problem").contains("no CloudEvent"));
    }
    let message = decode(line(b"\xff\xfe"), Format::Body, &origin(), "7".to_owned());
    assert!(message.headers.is_empty() && message.body.json().is_err());
}

proptest! {
    #[test]
    fn messages_come_back_from_their_event_lines(message in arbitrary::message()) {
        let text = encode(&message, Format::Event);
        let lines = all(&text, 1 << 20, 10);
        prop_assert_eq!(lines.len(), 1);
        let read = decode(lines.into_iter().next().expect("one"), Format::Event, &origin(), String::new());
        prop_assert_eq!(arbitrary::compacted(&read), arbitrary::compacted(&message));
    }

    #[test]
    fn a_body_is_always_one_line_of_json(message in arbitrary::message()) {
        let text = encode(&message, Format::Body);
        prop_assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 1);
        prop_assert!(sluicegate_engine::message::parse_json(&text).is_ok());
    }

    #[test]
    fn lines_are_those_between_the_breaks(parts in prop::collection::vec("[a-z\r ]{0,9}", 0..40), max in 1_usize..5) {
        let input = parts.join("\n");
        let expected: Vec<&str> = input
            .split('\n')
            .map(|part| part.strip_suffix('\r').unwrap_or(part))
            .filter(|part| !part.trim_ascii().is_empty())
            .collect();
        let found = all(input.as_bytes(), 1_000, max);
        prop_assert_eq!(found.iter().map(|line| std::str::from_utf8(&line.bytes).expect("ASCII")).collect::<Vec<_>>(), expected);
    }
}
