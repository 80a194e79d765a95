//! A person at a terminal, which `script(1)` gives a program.

use std::io::{Read, Write};
use std::process::{Command, ExitStatus, Stdio};

/// Whether there is `script`. If not, this has said that `what` is not tested.
pub fn at_hand(what: &str) -> bool {
    let found = Command::new("script").arg("--version").output().is_ok();
    if !found {
        println!("skipped: {what}: no program \"script\", which a terminal comes from");
    }
    found
}

/// Runs `program`, a line for a shell, in a terminal that `script` makes: a command of that program without arguments. Each of `answers` is
/// typed once its question was shown. Returns everything that was shown.
pub fn run(mut script: Command, program: &str, answers: &[(&str, &[u8])]) -> (String, ExitStatus) {
    script.args(["-qec", program, "/dev/null"]);
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script starts");
    let mut output = child.stdout.take().expect("a pipe");
    let mut keyboard = child.stdin.take().expect("a pipe");
    let mut answers = answers.iter();
    let mut next = answers.next();
    let (mut shown, mut bytes) = (Vec::new(), [0; 256]);
    loop {
        let read = output.read(&mut bytes).unwrap_or(0);
        if read == 0 {
            break;
        }
        shown.extend_from_slice(&bytes[..read]);
        if let Some((question, answer)) = next
            && String::from_utf8_lossy(&shown).contains(question)
        {
            keyboard.write_all(answer).and_then(|()| keyboard.flush()).expect("the terminal is read");
            next = answers.next();
        }
    }
    let status = child.wait().expect("script ends");
    (String::from_utf8_lossy(&shown).into_owned(), status)
}
