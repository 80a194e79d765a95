//! The ways in which `pg_basebackup` can be asked for a backup.

use backstop_protocol::version::ServerVersion;

use super::backup::Backup;
use crate::served::said;

/// What a backup is when it is done.
#[derive(Clone, Copy)]
pub(crate) enum Gives {
    /// A data directory.
    Plain,
    /// Archives, with the suffix of compressed ones.
    Archives(&'static str),
}

/// One way.
pub(crate) struct Way {
    /// The options, separated by spaces.
    pub(crate) options: &'static str,
    /// A part of the BASE_BACKUP that comes of them, as releases since 15 are asked.
    pub(crate) asks: &'static str,
    pub(crate) gives: Gives,
    /// The first release whose tool knows the options.
    pub(crate) since: u16,
    /// The library that the tool must have been built with, as it names the method.
    pub(crate) library: Option<&'static str>,
}

const fn plain(options: &'static str, asks: &'static str) -> Way {
    Way { options, asks, gives: Gives::Plain, since: 15, library: None }
}

const fn archives(options: &'static str, asks: &'static str, suffix: &'static str) -> Way {
    Way { options, asks, gives: Gives::Archives(suffix), since: 15, library: None }
}

impl Way {
    const fn since(self, since: u16) -> Self {
        Self { since, ..self }
    }

    const fn needs(self, library: &'static str) -> Self {
        Self { library: Some(library), ..self }
    }

    /// How the backup gets its WAL.
    fn wal(&self) -> &str {
        self.options.split(' ').find_map(|option| option.strip_prefix("-X")).unwrap_or("stream")
    }

    /// Whether the tool's build can do it. A build that cannot has to say so, or something else is wrong.
    fn is_possible(&self, backup: &Backup<'_>) -> bool {
        let Some(library) = self.library else { return true };
        // It looks at this before it connects, and at the name of the server only then.
        let method = library.to_ascii_lowercase();
        let compress = format!("--compress=client-{method}");
        let mut tool = backup.tool.tool("pg_basebackup");
        tool.args(["-Ft", "-Xnone", "-h", "/nowhere", &compress, "-D"]).arg(backup.directory.with_extension("not"));
        let said = said(&tool.output().unwrap());
        let lacks = said.contains(&format!("this build does not support compression with {library}"));
        assert!(lacks || said.contains("No such file or directory"), "{said}");
        if lacks {
            println!("skipped: pg_basebackup {}: no {library} in pg_basebackup {}", self.options, backup.tool.major());
        }
        !lacks
    }

    /// Takes the backup, if tool and build know how, and looks at every byte of it.
    pub(crate) fn take(&self, backup: &Backup<'_>) {
        if backup.tool.major() < self.since || !self.is_possible(backup) {
            return;
        }
        let context =
            format!("pg_basebackup {} {} from {}", backup.tool.major(), self.options, backup.version().name());
        let options: Vec<_> = self.options.split(' ').collect();
        let output = backup.run(&options);
        let said = said(&output);
        assert!(output.status.success(), "{context}: {said}");
        assert!(said.ends_with("pg_basebackup: base backup completed\n"), "{context}: {said}");
        let spaces = backup.served.server.cluster().tablespaces().len() + 1;
        assert!(said.contains(&format!("(100%), {spaces}/{spaces} tablespace")), "{context}: {said}");
        if backup.at_home() {
            let asked = backup.served.commands("BASE_BACKUP").pop().unwrap();
            assert!(asked.contains(self.asks), "{context}: {asked}");
        }
        let manifest = backup.version() >= ServerVersion::V13 && !options.contains(&"--no-manifest");
        assert_eq!(backup.directory.join("backup_manifest").exists(), manifest, "{context}");
        let wal = self.wal();
        match self.gives {
            Gives::Plain => backup.check(&backup.directory, wal != "none"),
            Gives::Archives(suffix) => {
                // The tool compresses the WAL of its own stream with gzip alone, and only if the rest is its work, too.
                let by_tool = suffix == ".gz" && !self.options.contains("server-");
                let stream = (wal == "stream").then_some(if by_tool { ".gz" } else { "" });
                backup.check(&backup.unpack(suffix, stream), wal != "none");
                if manifest && ["", ".gz"].contains(&suffix) {
                    backup.verify_archives();
                }
            }
        }
    }
}

/// Every format with every WAL method: what works against servers of every release.
#[rustfmt::skip]
pub(crate) const EVERYWHERE: &[Way] = &[
    plain("-Fp -Xstream", "WAIT 0"),
    plain("-Fp -Xfetch", " WAL"),
    plain("-Fp -Xnone", "PROGRESS"),
    archives("-Ft -Xstream", "TABLESPACE_MAP", ""),
    archives("-Ft -Xfetch", " WAL", ""),
    archives("-Ft -Xnone", "TABLESPACE_MAP", ""),
];

/// Everything else, against a server of the tool's own release.
#[rustfmt::skip]
pub(crate) const AT_HOME: &[Way] = &[
    plain("-Fp --no-slot", "WAIT 0"),
    plain("-Fp -Xnone -cfast", "CHECKPOINT 'fast'"),
    plain("-Fp -Xnone -cspread", "PROGRESS"),
    plain("-Fp -Xnone -r 20M", "MAX_RATE 20480"),
    plain("-Fp -Xnone -l it's", "LABEL 'it''s'"),
    plain("-Fp -Xnone --no-verify-checksums", "VERIFY_CHECKSUMS 0"),
    plain("-Fp -Xfetch --no-manifest", " WAL"),
    archives("-Ft -Xnone --no-manifest", "TABLESPACE_MAP", ""),
    // The manifest
    plain("-Fp -Xnone --manifest-checksums=none", "MANIFEST_CHECKSUMS 'none'"),
    plain("-Fp -Xnone --manifest-checksums=CRC32C", "MANIFEST_CHECKSUMS 'CRC32C'"),
    plain("-Fp -Xnone --manifest-checksums=sha224", "MANIFEST_CHECKSUMS 'sha224'"),
    plain("-Fp -Xnone --manifest-checksums=sha256", "MANIFEST_CHECKSUMS 'sha256'"),
    plain("-Fp -Xnone --manifest-checksums=sha384", "MANIFEST_CHECKSUMS 'sha384'"),
    plain("-Fp -Xnone --manifest-checksums=sha512", "MANIFEST_CHECKSUMS 'sha512'"),
    plain("-Fp -Xnone --manifest-force-encode", "MANIFEST 'force-encode'"),
    archives("-Ft -Xnone --manifest-force-encode --manifest-checksums=SHA512", "MANIFEST 'force-encode'", ""),
    // Compression by the tool
    archives("-Ft -Xstream -z", "TABLESPACE_MAP", ".gz"),
    archives("-Ft -Xstream -Z1", "TABLESPACE_MAP", ".gz"),
    archives("-Ft -Xnone --compress=gzip:9", "TABLESPACE_MAP", ".gz"),
    archives("-Ft -Xfetch --compress=client-gzip:level=3", "TABLESPACE_MAP", ".gz"),
    archives("-Ft -Xstream --compress=client-lz4", "TABLESPACE_MAP", ".lz4").needs("LZ4"),
    archives("-Ft -Xnone --compress=client-lz4:9", "TABLESPACE_MAP", ".lz4").needs("LZ4"),
    archives("-Ft -Xstream --compress=client-zstd:5", "TABLESPACE_MAP", ".zst").needs("ZSTD"),
    archives("-Ft -Xnone --compress=client-zstd:workers=3", "TABLESPACE_MAP", ".zst").needs("ZSTD"),
    archives("-Ft -Xnone --compress=client-zstd:level=1,long", "TABLESPACE_MAP", ".zst").needs("ZSTD").since(16),
    // Compression by the server, kept
    archives("-Ft -Xstream --compress=server-gzip", "COMPRESSION 'gzip'", ".gz"),
    archives("-Ft -Xfetch --compress=server-gzip:9", "COMPRESSION_DETAIL '9'", ".gz"),
    archives("-Ft -Xstream --compress=server-lz4", "COMPRESSION 'lz4'", ".lz4"),
    archives("-Ft -Xnone --compress=server-lz4:12", "COMPRESSION_DETAIL '12'", ".lz4"),
    archives("-Ft -Xstream --compress=server-zstd:level=3", "COMPRESSION 'zstd'", ".zst"),
    archives("-Ft -Xfetch --compress=server-zstd:workers=2,level=7", "COMPRESSION_DETAIL 'workers=2,level=7'", ".zst"),
    archives("-Ft -Xnone --compress=server-zstd:long", "COMPRESSION_DETAIL 'long'", ".zst").since(16),
    // … and unpacked by the tool
    plain("-Fp -Xstream --compress=server-gzip:5", "COMPRESSION 'gzip'"),
    plain("-Fp -Xfetch --compress=server-lz4:5", "COMPRESSION 'lz4'").needs("LZ4"),
    plain("-Fp -Xnone --compress=server-zstd:workers=2", "COMPRESSION 'zstd'").needs("ZSTD"),
];
