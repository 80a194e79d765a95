//! The password file.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A larger file is no password file, in bytes.
const MAX: u64 = 1 << 20;

/// What can be read of a password file, or the warning why it is ignored. A file that is not there is empty.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let Ok(metadata) = path.metadata() else { return Ok(String::new()) };
    if !metadata.is_file() {
        return Err(format!("password file \"{}\" is not a plain file", path.display()));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(format!(
            "password file \"{}\" has group or world access; permissions should be u=rw (0600) or less",
            path.display()
        ));
    }
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX).read_to_end(&mut text));
    Ok(read.map(|_| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default())
}

/// The password in the first line that fits host, port, database and user.
pub(super) fn find(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = split_fields(line.trim_end_matches('\r'));
        let password = fields.split_off(fields.len().min(4));
        let fits = |(field, wanted): (&Field, &str)| field.any || field.text == wanted;
        let fits = fields.len() == 4 && fields.iter().zip(wanted).all(fits);
        password.into_iter().next().map(|field| field.text).filter(|password| fits && !password.is_empty())
    })
}

/// A field: what it says, or a bare asterisk.
#[derive(Default)]
struct Field {
    text: String,
    any: bool,
}

/// The fields of a line: colons and backslashes in them are escaped. The last one takes the rest.
fn split_fields(line: &str) -> Vec<Field> {
    let mut fields = vec![Field::default()];
    let mut chars = line.chars();
    let mut escaped = false;
    while let Some(c) = chars.next() {
        let last = fields.len() == 5;
        let Some(field) = fields.last_mut() else { return fields };
        match c {
            '\\' => {
                field.text.extend(chars.next());
                field.any = false;
                escaped = true;
            }
            ':' if !last => {
                fields.push(Field::default());
                escaped = false;
            }
            c => {
                field.text.push(c);
                field.any = field.text == "*" && !escaped;
            }
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_passwords() {
        let text = "# comment\nother:*:*:*:no\nh\\:1:5432:replication:me:p:w\\:d\r\n\\*:*:*:*:star\n*:*:*:*:last\n";
        let find = |host: &str, user| find(text, [host, "5432", "replication", user]);
        assert_eq!(find("h:1", "me").as_deref(), Some("p:w:d"));
        assert_eq!(find("h:1", "you").as_deref(), Some("last"));
        assert_eq!(find("*", "you").as_deref(), Some("star"), "an escaped asterisk is one");
        assert_eq!(super::find("h:1:d", ["h", "1", "d", "u"]), None, "too few fields");
        assert_eq!(super::find("h:1:d:u:", ["h", "1", "d", "u"]), None, "an empty password is none");
    }

    #[test]
    fn a_file_that_others_can_read_is_ignored_with_a_warning() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "*:*:*:*:secret\n").expect("written");
        for (mode, ignored) in [(0o600, false), (0o640, true), (0o604, true)] {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).expect("set");
            assert_eq!(read(file.path()).is_err(), ignored, "{mode:o}");
        }
        let directory = tempfile::tempdir().expect("a directory");
        assert!(read(directory.path()).expect_err("a directory").ends_with("is not a plain file"));
        assert_eq!(read(&directory.path().join("none")), Ok(String::new()));
    }

    proptest! {
        #[test]
        fn any_line_is_safe(line in ".{0,60}") {
            let _ = find(&line, ["a", "1", "b", "c"]);
        }
    }
}
