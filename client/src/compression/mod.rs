//! Compression of archives: what this client writes compressed, and what a server sends compressed.
//!
//! Both directions work on pieces of a stream and need memory for one window or block, never for an archive. What is
//! unpacked is untrusted: sizes are checked before anything is allocated for them, and data that ends inside of a frame is an
//! error.

mod decoder;
mod encoder;
mod lz4;

use std::fmt;

use backstop_protocol::base_backup::options::compression::{
    CompressArgument, CompressionError, CompressionLocation, CompressionSupport,
};
use backstop_protocol::base_backup::options::{Compression, CompressionAlgorithm};

pub(crate) use self::decoder::Decoder;
pub(crate) use self::encoder::Encoder;

/// Who compresses archives, and with what (`--compress`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ArchiveCompression {
    /// Nobody.
    #[default]
    None,
    /// This client, as it writes tar files. `pg_wal.tar` is compressed with gzip only, as `pg_basebackup` does it.
    ///
    /// Every level of LZ4 is taken, and all of them compress alike: there is one way to compress in here. Workers of
    /// Zstandard are threads.
    Client(Compression),
    /// The server, since 15. Its archives are stored as they come, or unpacked into a plain directory.
    Server {
        /// The name of the algorithm, which the server judges.
        algorithm: String,
        /// The level or the list of options, which the server judges.
        detail: Option<String>,
    },
}

impl ArchiveCompression {
    /// Reads `--compress`: `[{client|server}-]METHOD[:DETAIL]`, or a level of gzip. Where it does not say who compresses, it is the
    /// client, or the server if the backup does not come `here`.
    ///
    /// ```
    /// use backstop_client::ArchiveCompression;
    ///
    /// assert_eq!(ArchiveCompression::parse("zstd:level=3", true)?.to_string(), "client-zstd:level=3");
    /// assert_eq!(ArchiveCompression::parse("5", false)?.to_string(), "server-gzip:5");
    /// assert_eq!(ArchiveCompression::parse("none", true)?, ArchiveCompression::None);
    /// # Ok::<(), String>(())
    /// ```
    ///
    /// # Errors
    /// What `pg_basebackup` says of a compression that it cannot do. What a server shall do is not judged.
    pub fn parse(argument: &str, here: bool) -> Result<Self, String> {
        let argument = CompressArgument::parse(argument);
        let unsaid = if here { CompressionLocation::Client } else { CompressionLocation::Server };
        if argument.location.unwrap_or(unsaid) == CompressionLocation::Server {
            let (algorithm, detail) = (argument.algorithm.to_owned(), argument.detail.map(str::to_owned));
            return Ok(Self::Server { algorithm, detail });
        }
        let support = CompressionSupport { gzip: true, lz4: true, zstd: true, long_distance: true };
        let algorithm = argument.algorithm.parse().map_err(|error: CompressionError| error.to_string())?;
        let compression = Compression::parse(algorithm, argument.detail, support)
            .map_err(|error| format!("invalid compression specification: {error}"))?;
        Ok(if algorithm == CompressionAlgorithm::None { Self::None } else { Self::Client(compression) })
    }

    /// What the server compresses with, if this client knows it.
    pub(crate) fn on_server(&self) -> CompressionAlgorithm {
        match self {
            Self::Server { algorithm, .. } => algorithm.parse().unwrap_or_default(),
            Self::None | Self::Client(_) => CompressionAlgorithm::None,
        }
    }

    /// What this client compresses with.
    pub(crate) fn on_client(&self) -> Compression {
        match self {
            Self::Client(compression) => compression.clone(),
            Self::None | Self::Server { .. } => Compression::plain(CompressionAlgorithm::None),
        }
    }

    /// What archives are stored with, whoever does it.
    pub(crate) fn stored(&self) -> Compression {
        match self {
            Self::Server { .. } => Compression::plain(self.on_server()),
            Self::None | Self::Client(_) => self.on_client(),
        }
    }
}

impl fmt::Display for ArchiveCompression {
    /// As on the command line: `server-zstd:level=3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (location, algorithm, detail) = match self {
            Self::None => return f.write_str("none"),
            Self::Client(compression) => ("client", compression.algorithm.name(), &compression.detail),
            Self::Server { algorithm, detail } => ("server", algorithm.as_str(), detail),
        };
        write!(f, "{location}-{algorithm}")?;
        detail.as_ref().map_or(Ok(()), |detail| write!(f, ":{detail}"))
    }
}
