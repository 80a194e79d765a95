//! What real servers said, 12 to 18, is decoded without a surprise: no byte that is not understood, no message that is malformed.

use std::path::Path;

use serde_json::Value;

/// A session as a text that `backstop decode` reads, and what is left out of it in words.
fn text(lines: &[Value]) -> String {
    let mut text = String::new();
    for line in lines {
        let sign = if line["dir"] == "F" { "<" } else { ">" };
        match line["hex"].as_str() {
            Some(hex) if line.get("hex_cut").is_none() => text.extend([sign, " ", hex, "\n"]),
            // Of runs of data, and of some long messages, only the lengths were recorded.
            Some(_) if sign == "<" => {}
            _ => text.push_str("... left out of the recording\n"),
        }
    }
    text
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    backstop::decode::decode(text.as_bytes(), None, &mut out).expect("a text that can be read");
    String::from_utf8(out).expect("UTF-8")
}

/// The sessions of a release by name.
fn sessions(version: u32) -> Vec<(String, Vec<Value>)> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mock-server/tests/recordings/data");
    let packed = std::fs::read(data.join(format!("v{version}.jsonl.zst"))).expect("a recording");
    let lines = String::from_utf8(zstd::decode_all(packed.as_slice()).expect("zstd")).expect("UTF-8");
    let mut sessions: Vec<(String, Vec<Value>)> = Vec::new();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        if let Some(name) = line["session"].as_str() {
            sessions.push((format!("v{version}/{name}"), Vec::new()));
        } else if let (Some((_, lines)), true) = (sessions.last_mut(), line.get("dir").is_some()) {
            lines.push(line);
        }
    }
    sessions
}

#[test]
fn no_byte_of_a_real_server_is_a_surprise() {
    let (mut messages, mut surprises) = (0, Vec::new());
    for (name, lines) in (12..=18).flat_map(sessions) {
        let decoded = decoded(&text(&lines));
        for line in decoded.lines() {
            messages += usize::from(line.contains(" > ") || line.contains(" < "));
            // A server that dies while it sends dies in the middle of a message.
            let dies = name.ends_with("immediate-shutdown-backup") || name.ends_with("crash-backup");
            let expected = line.contains("left out of the recording") || dies && line.contains("end inside a message");
            let remark = line.contains(" ! ") && !expected;
            if remark || line.contains("malformed") || line.contains("that nothing announced") {
                surprises.push(format!("{name}: {}", line.trim_start()));
            }
        }
    }
    assert!(messages > 9000, "{messages} messages");
    assert_eq!(surprises, Vec::<String>::new());
}

#[test]
fn both_generations_are_told_apart() {
    let shown = |version, name: &str| {
        let name = format!("v{version}/{name}");
        let (_, lines) = sessions(version).into_iter().find(|(known, _)| *known == name).expect("it was recorded");
        decoded(&text(&lines))
    };
    insta::assert_snapshot!("before_15", shown(14, "plain"));
    insta::assert_snapshot!("since_15", shown(18, "plain"));
}
