//! How archives are compressed: `compression.c`, for BASE_BACKUP's options and for a client's `--compress`.

use std::fmt;
use std::str::FromStr;

/// `pg_compress_algorithm`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum CompressionAlgorithm {
    #[default]
    None,
    Gzip,
    Lz4,
    Zstd,
}

/// What is wrong with a compression specification, in PostgreSQL's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CompressionError(pub String);

impl CompressionAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 4] = [Self::None, Self::Gzip, Self::Lz4, Self::Zstd];

    /// The name in commands and options.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// What is appended to an archive's name: `.gz`, or nothing without compression.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Lz4 => ".lz4",
            Self::Zstd => ".zst",
        }
    }

    /// The lowest and the highest level, and the one that is used when none is given.
    fn levels(self) -> (i32, i32, i32) {
        match self {
            Self::None => (0, 0, 0),
            Self::Gzip => (1, 9, -1),
            Self::Lz4 => (1, 12, 0),
            Self::Zstd => (-131_072, 22, 3),
        }
    }
}

impl fmt::Display for CompressionAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CompressionAlgorithm {
    type Err = CompressionError;

    /// Reads a name, which is case-sensitive.
    fn from_str(name: &str) -> Result<Self, CompressionError> {
        let known = Self::ALL.into_iter().find(|algorithm| algorithm.name() == name);
        known.ok_or_else(|| CompressionError(format!("unrecognized compression algorithm: \"{name}\"")))
    }
}

/// What a program can compress with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressionSupport {
    /// Whether it was built with zlib.
    pub gzip: bool,
    /// Whether it was built with LZ4.
    pub lz4: bool,
    /// Whether it was built with Zstandard.
    pub zstd: bool,
    /// Whether it knows the option `long`, as PostgreSQL does since 16.
    pub long_distance: bool,
}

impl CompressionSupport {
    fn has(self, algorithm: CompressionAlgorithm) -> bool {
        match algorithm {
            CompressionAlgorithm::None => true,
            CompressionAlgorithm::Gzip => self.gzip,
            CompressionAlgorithm::Lz4 => self.lz4,
            CompressionAlgorithm::Zstd => self.zstd,
        }
    }
}

/// A valid compression: `pg_compress_specification`, and the text it was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compression {
    /// The algorithm.
    pub algorithm: CompressionAlgorithm,
    /// The text that the fields below were read from: `5`, `level=3,workers=2`.
    pub detail: Option<String>,
    /// The level, or the algorithm's default.
    pub level: i32,
    /// How many workers, for zstd only.
    pub workers: Option<i32>,
    /// Whether long-distance matching is on, for zstd only.
    pub long_distance: bool,
}

impl Compression {
    /// An algorithm with nothing said about it.
    pub fn plain(algorithm: CompressionAlgorithm) -> Self {
        Self { algorithm, level: algorithm.levels().2, ..Self::default() }
    }

    /// Reads a detail: a level, or `keyword` and `keyword=value` with commas between them.
    ///
    /// # Errors
    /// The texts of `parse_compress_specification` and `validate_compress_specification`, without the
    /// `invalid compression specification: ` that both tools and servers put before them.
    pub fn parse(
        algorithm: CompressionAlgorithm,
        detail: Option<&str>,
        support: CompressionSupport,
    ) -> Result<Self, CompressionError> {
        let mut compression = Self { detail: detail.map(str::to_owned), ..Self::plain(algorithm) };
        let mut long_given = false;
        let unsupported = match algorithm {
            CompressionAlgorithm::Gzip => "gzip",
            CompressionAlgorithm::Lz4 => "LZ4",
            _ => "ZSTD",
        };
        let unsupported = format!("this build does not support compression with {unsupported}");
        let missing = (!support.has(algorithm)).then_some(CompressionError(unsupported));
        match detail {
            None => {}
            Some(detail) => match c_integer(detail) {
                Some(level) => compression.level = level,
                None => {
                    for (index, item) in detail.split(',').enumerate() {
                        compression.item(item, support, &mut long_given)?;
                        // A missing library is reported once the first item is read, if nothing is wrong with that.
                        if let (0, Some(missing)) = (index, &missing) {
                            return Err(missing.clone());
                        }
                    }
                }
            },
        }
        if let Some(missing) = missing {
            return Err(missing);
        }
        compression.validate(long_given)?;
        Ok(compression)
    }

    fn item(&mut self, item: &str, support: CompressionSupport, long_given: &mut bool) -> Result<(), CompressionError> {
        let (keyword, value) = match item.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (item, None),
        };
        match keyword {
            "" => {
                let message = "found empty string where a compression option was expected";
                return Err(CompressionError(message.to_owned()));
            }
            "level" => self.level = integer(keyword, value)?,
            "workers" => self.workers = Some(integer(keyword, value)?),
            "long" if support.long_distance => {
                self.long_distance = boolean(keyword, value)?;
                *long_given = true;
            }
            _ => return Err(CompressionError(format!("unrecognized compression option: \"{keyword}\""))),
        }
        Ok(())
    }

    fn validate(&self, long_given: bool) -> Result<(), CompressionError> {
        let name = self.algorithm.name();
        let refuse = |what: String| Err(CompressionError(format!("compression algorithm \"{name}\" {what}")));
        let (lowest, highest, default) = self.algorithm.levels();
        if self.algorithm == CompressionAlgorithm::None && self.level != 0 {
            return refuse("does not accept a compression level".to_owned());
        }
        if !(lowest..=highest).contains(&self.level) && self.level != default {
            return refuse(format!(
                "expects a compression level between {lowest} and {highest} (default at {default})"
            ));
        }
        if self.workers.is_some() && self.algorithm != CompressionAlgorithm::Zstd {
            return refuse("does not accept a worker count".to_owned());
        }
        if long_given && self.algorithm != CompressionAlgorithm::Zstd {
            return refuse("does not support long-distance mode".to_owned());
        }
        Ok(())
    }
}

/// Who compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum CompressionLocation {
    Client,
    Server,
}

/// The parts of `--compress=[{client|server}-]METHOD[:DETAIL]`, not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressArgument<'a> {
    /// Who compresses, if that is said.
    pub location: Option<CompressionLocation>,
    /// To be read as a [`CompressionAlgorithm`].
    pub algorithm: &'a str,
    /// To be read by [`Compression::parse`]; a server's is sent as it is.
    pub detail: Option<&'a str>,
}

impl<'a> CompressArgument<'a> {
    /// Takes an argument of pg_basebackup apart. A number alone is a level for gzip; 0, or nothing, is no compression.
    pub fn parse(argument: &'a str) -> Self {
        let (location, rest) = match (argument.strip_prefix("server-"), argument.strip_prefix("client-")) {
            (Some(rest), _) => (Some(CompressionLocation::Server), rest),
            (_, Some(rest)) => (Some(CompressionLocation::Client), rest),
            _ => (None, argument),
        };
        let (algorithm, detail) = match (c_integer(rest), rest.split_once(':')) {
            (Some(0), _) => ("none", None),
            (Some(_), _) => ("gzip", Some(rest)),
            _ if rest.is_empty() => ("none", None),
            (None, Some((algorithm, detail))) => (algorithm, Some(detail)),
            (None, None) => (rest, None),
        };
        Self { location, algorithm, detail }
    }
}

fn integer(keyword: &str, value: Option<&str>) -> Result<i32, CompressionError> {
    let value = value.ok_or_else(|| CompressionError(format!("compression option \"{keyword}\" requires a value")))?;
    let problem = || CompressionError(format!("value for compression option \"{keyword}\" must be an integer"));
    c_integer(value).ok_or_else(problem)
}

fn boolean(keyword: &str, value: Option<&str>) -> Result<bool, CompressionError> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("yes" | "on" | "1") => Ok(true),
        Some("no" | "off" | "0") => Ok(false),
        Some(_) => Err(CompressionError(format!("value for compression option \"{keyword}\" must be a Boolean value"))),
    }
}

/// `strtol` into an `int`, if it takes the whole text: blanks, a sign, digits. Saturates at 64 bits, then keeps 32.
fn c_integer(text: &str) -> Option<i32> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0B', '\x0C', '\r']);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let negative = text.starts_with('-');
    let value = text.parse().unwrap_or(if negative { i64::MIN } else { i64::MAX });
    u32::try_from(value & i64::from(u32::MAX)).ok().map(u32::cast_signed)
}

#[cfg(test)]
mod tests {
    use CompressionAlgorithm::{Gzip, Lz4, None as Plain, Zstd};
    use proptest::prelude::*;

    use super::*;

    const ALL: CompressionSupport = CompressionSupport { gzip: true, lz4: true, zstd: true, long_distance: true };
    const OLD: CompressionSupport = CompressionSupport { gzip: true, lz4: false, zstd: false, long_distance: false };

    fn refusal(algorithm: CompressionAlgorithm, detail: &str, support: CompressionSupport) -> String {
        Compression::parse(algorithm, Some(detail), support).expect_err(detail).to_string()
    }

    #[test]
    fn reads_levels_and_options() {
        let parse = |algorithm, detail| Compression::parse(algorithm, Some(detail), ALL).expect("a valid detail");
        assert_eq!(parse(Gzip, "5").level, 5);
        assert_eq!(parse(Gzip, " +5").level, 5);
        assert_eq!(parse(Gzip, "-1").level, -1);
        let zstd = parse(Zstd, "level=-7,workers=2,long=OFF,long");
        assert_eq!((zstd.level, zstd.workers, zstd.long_distance), (-7, Some(2), true));
        assert_eq!(zstd.detail.as_deref(), Some("level=-7,workers=2,long=OFF,long"));
        assert_eq!(Compression::parse(Zstd, None, ALL), Ok(Compression::plain(Zstd)));
        assert_eq!(Compression::plain(Zstd).level, 3);
    }

    #[test]
    fn refuses_in_postgresql_words() {
        let levels = "compression algorithm \"gzip\" expects a compression level between 1 and 9 (default at -1)";
        assert_eq!(refusal(Gzip, "level=99", ALL), levels);
        assert_eq!(refusal(Gzip, "0", ALL), levels);
        let levels = "compression algorithm \"lz4\" expects a compression level between 1 and 12 (default at 0)";
        assert_eq!(refusal(Lz4, "13", ALL), levels);
        let levels = "compression algorithm \"zstd\" expects a compression level between -131072 and 22 (default at 3)";
        assert_eq!(refusal(Zstd, "level=99", ALL), levels);
        assert_eq!(refusal(Plain, "3", ALL), "compression algorithm \"none\" does not accept a compression level");
        assert_eq!(refusal(Plain, "workers=3", ALL), "compression algorithm \"none\" does not accept a worker count");
        assert_eq!(refusal(Gzip, "workers=2", ALL), "compression algorithm \"gzip\" does not accept a worker count");
        assert_eq!(refusal(Gzip, "long=no", ALL), "compression algorithm \"gzip\" does not support long-distance mode");
        assert_eq!(refusal(Gzip, "long", OLD), "unrecognized compression option: \"long\"");
        assert_eq!(refusal(Zstd, "long=maybe", ALL), "value for compression option \"long\" must be a Boolean value");
        assert_eq!(refusal(Gzip, "level", ALL), "compression option \"level\" requires a value");
        for detail in ["level=", "level=x", "level=9x"] {
            assert_eq!(refusal(Gzip, detail, ALL), "value for compression option \"level\" must be an integer");
        }
        for detail in ["", "level=9,", ",level=9", "=9"] {
            let empty = "found empty string where a compression option was expected";
            assert_eq!(refusal(Gzip, detail, ALL), empty, "{detail:?}");
        }
        assert_eq!(
            "bzip2".parse::<CompressionAlgorithm>().expect_err("unknown").to_string(),
            "unrecognized compression algorithm: \"bzip2\""
        );
    }

    #[test]
    fn a_missing_library_yields_to_a_wrong_first_item() {
        assert_eq!(refusal(Lz4, "99", OLD), "this build does not support compression with LZ4");
        assert_eq!(refusal(Zstd, "level=99,bogus", OLD), "this build does not support compression with ZSTD");
        assert_eq!(refusal(Zstd, "bogus", OLD), "unrecognized compression option: \"bogus\"");
        let none = CompressionSupport { gzip: false, ..OLD };
        assert_eq!(refusal(Gzip, "5", none), "this build does not support compression with gzip");
    }

    #[test]
    fn takes_compress_arguments_apart() {
        let parts = |argument| {
            let CompressArgument { location, algorithm, detail } = CompressArgument::parse(argument);
            (location, algorithm, detail)
        };
        assert_eq!(parts("server-gzip:5"), (Some(CompressionLocation::Server), "gzip", Some("5")));
        assert_eq!(parts("client-zstd"), (Some(CompressionLocation::Client), "zstd", None));
        assert_eq!(parts("gzip:"), (None, "gzip", Some("")));
        assert_eq!(parts("7"), (None, "gzip", Some("7")));
        assert_eq!(parts("0"), (None, "none", None));
        assert_eq!(parts(""), (None, "none", None));
        assert_eq!(parts("none+"), (None, "none+", None));
    }

    proptest! {
        #[test]
        fn any_detail_is_safe(index in 0_usize..4, detail in "[a-z0-9=,+ -]{0,24}") {
            let algorithm = CompressionAlgorithm::ALL[index];
            if let Ok(compression) = Compression::parse(algorithm, Some(&detail), ALL) {
                prop_assert_eq!(compression.detail, Some(detail));
            }
        }
    }
}
