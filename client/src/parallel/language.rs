//! Compression on the wire, with a procedural language of the server.

use super::session::Session;
use crate::error::ClientError;

/// A language in which a function can read files and compress them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Perl,
    Python,
}

/// Reads a piece of a file like the server's own function, and compresses it with zlib.
pub(super) const READ: &str = "SELECT pg_temp.read_compressed($1, $2, $3)";

const INSTALLED: &str = "SELECT lanname FROM pg_language WHERE lanname IN ('plperlu', 'plpython3u')";

/// Paths are relative to the data directory, where backends are at home.
const PERL: &str = r#"CREATE FUNCTION pg_temp.read_compressed(text, bigint, bigint) RETURNS bytea LANGUAGE plperlu AS $$
    use Compress::Zlib;
    my ($path, $offset, $length) = @_;
    my $file;
    unless (open($file, '<:raw', $path)) {
        return undef if $!{ENOENT};
        die qq(could not open file "$path": $!);
    }
    my $data = '';
    sysseek($file, $offset, 0) or die qq(could not seek in file "$path": $!);
    while (length($data) < $length) {
        my $read = sysread($file, $data, $length - length($data), length($data));
        die qq(could not read file "$path": $!) unless defined($read);
        last if $read == 0;
    }
    return encode_bytea(compress($data, 1));
$$"#;

const PYTHON: &str = r"CREATE FUNCTION pg_temp.read_compressed(path text, start bigint, length bigint) RETURNS bytea LANGUAGE plpython3u AS $$
    import zlib
    try:
        with open(path, 'rb') as file:
            file.seek(start)
            return zlib.compress(file.read(length), 1)
    except FileNotFoundError:
        return None
$$";

impl Language {
    /// Makes the function in `session`, if a language is there and the role may use it. Whether it did.
    pub(super) async fn install(session: &mut Session) -> Result<bool, ClientError> {
        let rows = session.rows("could not list languages", INSTALLED, &[], (1, 2)).await?;
        let has = |name: &[u8]| rows.iter().flatten().flatten().any(|value| **value == *name);
        let languages = [(Self::Python, has(b"plpython3u")), (Self::Perl, has(b"plperlu"))];
        for (language, _) in languages.into_iter().filter(|(_, there)| *there) {
            let made = session.rows("could not create a function", language.function(), &[], (0, 0)).await;
            match made {
                Ok(_) => return Ok(true),
                // No right to, or the language does not work: that is no reason to have no backup.
                Err(error) if error.session_goes_on() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    fn function(self) -> &'static str {
        match self {
            Self::Perl => PERL,
            Self::Python => PYTHON,
        }
    }
}
