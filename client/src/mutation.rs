//! Deliberately broken clients, for testing what tests clients: a suite that lets one of them pass has a hole.
//!
//! Each [`Mutation`] switches off one decision of this client, most of them one that a real client got wrong. Without the
//! feature `mutants` there is no way to ask for one, and every question for one is the constant `false`.

use std::fmt;

macro_rules! mutations {
    ($($(#[doc = $what:literal])+ $variant:ident = $name:literal,)+) => {
        /// One way in which a client can be wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Mutation {
            $($(#[doc = $what])+ $variant,)+
        }

        impl Mutation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name: `stops-after-archives`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

mutations! {
    /// Takes the end of the archives for the end of the backup (neondatabase/neon#1715).
    StopsAfterArchives = "stops-after-archives",
    /// Takes the end position for the server's last word.
    StopsAtEndPosition = "stops-at-end-position",
    /// Takes the end of the connection for the end of the backup, once the archives are there.
    TakesEofForTheEnd = "takes-eof-for-the-end",
    /// Does not ask whether the end lies behind the start.
    TakesAnyEndPosition = "takes-any-end-position",
    /// Loses the message that follows a notice (jackc/pglogrepl).
    LosesMessageAfterNotice = "loses-message-after-notice",
    /// Skips messages that it cannot read.
    SkipsUnknownMessages = "skips-unknown-messages",
    /// Believes every length that a message claims.
    BelievesAnyLength = "believes-any-length",
    /// Reads the columns that it wants, whatever the RowDescription says (pg_basebackup: SIGSEGV).
    IgnoresRowDescription = "ignores-row-description",
    /// Waits for ever.
    NeverTimesOut = "never-times-out",
    /// Makes its slot a permanent one and leaves it behind.
    LeaksSlot = "leaks-slot",
    /// Never says how far it has come, not even when a keepalive asks.
    SendsNoStatus = "sends-no-status",
    /// Says that the segment which it has begun is on disk as a whole (flush positions: PostgreSQL believes them).
    ConfirmsTooMuch = "confirms-too-much",
    /// Stores streamed WAL wherever the last piece ended, whatever position it claims.
    AcceptsWalGaps = "accepts-wal-gaps",
    /// Stores streamed WAL without reading it (pg_basebackup).
    AcceptsWalGarbage = "accepts-wal-garbage",
    /// Ends the WAL stream as soon as the end position is known, not when it is reached.
    IgnoresEndPosition = "ignores-end-position",
    /// Accepts an archive without its two zero blocks.
    NeedsNoTrailer = "needs-no-trailer",
    /// Takes the end of an archive for the end of its last member, however much of that is missing (patroni/patroni#1405).
    AcceptsCutArchives = "accepts-cut-archives",
    /// Accepts that an announced archive never comes (pg_basebackup).
    ForgivesMissingArchives = "forgives-missing-archives",
    /// Accepts a base archive without label, version or control file (pg_basebackup).
    ForgivesMissingFiles = "forgives-missing-files",
    /// Accepts that the manifest which it asked for never comes.
    ForgivesMissingManifest = "forgives-missing-manifest",
    /// Makes no directory in which nothing lies (pgmoneta/pgmoneta#782).
    ForgetsEmptyDirectories = "forgets-empty-directories",
    /// Loses members whose header is the end of a message (after wal-g/wal-g#1106).
    SkipsMemberAtBorder = "skips-member-at-border",
    /// Accepts the same name twice.
    AcceptsDuplicates = "accepts-duplicates",
    /// Writes wherever a name leads.
    TrustsNames = "trusts-names",
    /// Makes whatever link an archive holds (CVE-2026-6475).
    TrustsLinks = "trusts-links",
    /// Unpacks the first tablespace and the base directory only.
    ForgetsSecondTablespace = "forgets-second-tablespace",
    /// Publishes a backup that does not fit its manifest (pgmoneta/pgmoneta#1263).
    LogsManifestMismatch = "logs-manifest-mismatch",
    /// Does not look at label, control file and manifest (pg_basebackup).
    NeverVerifies = "never-verifies",
    /// Publishes first and verifies afterwards: the failure is told, and the backup is there.
    PublishesUnverified = "publishes-unverified",
    /// Forces nothing to disk, whatever it was told (as pgmoneta does with its manifest).
    NeverSyncs = "never-syncs",
    /// Leaves what it made when it fails.
    LeavesPartialTarget = "leaves-partial-target",
    /// Leaves its connections open when it fails: the server goes on serving them.
    LeaksConnections = "leaks-connections",
    /// Of a parallel backup: leaves out files that cannot be read, and goes on.
    SkipsUnreadableFiles = "skips-unreadable-files",
    /// Of a parallel backup: takes a file that came short for one that has become short.
    TakesShortReads = "takes-short-reads",
    /// Of a parallel backup: fetches each segment once, as it is then, and does not read what it fetched.
    TakesWalOnce = "takes-wal-once",
}

impl Mutation {
    /// Whether the client with this mutation does not verify in the end what arrived. This client looks at everything twice,
    /// so that the last look would rescue it from most of what it overlooks before; those that have such a mistake by nature
    /// look once.
    fn looks_once(self) -> bool {
        matches!(
            self,
            Self::NeverVerifies
                | Self::StopsAfterArchives
                | Self::TakesAnyEndPosition
                | Self::AcceptsCutArchives
                | Self::ForgivesMissingArchives
                | Self::ForgivesMissingFiles
                | Self::SkipsMemberAtBorder
                | Self::AcceptsDuplicates
                | Self::TrustsNames
                | Self::TrustsLinks
        )
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The mutation that a client has, which is none for every client that is not a test of a test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weakness(Option<Mutation>);

impl Weakness {
    /// A client that is sound.
    pub const NONE: Self = Self(None);

    /// A client with this mutation.
    #[cfg(feature = "mutants")]
    pub fn of(mutation: Mutation) -> Self {
        Self(Some(mutation))
    }

    /// Whether the client has this mutation.
    pub(crate) fn is(self, mutation: Mutation) -> bool {
        cfg!(feature = "mutants") && self.0 == Some(mutation)
    }

    /// Whether the client trusts in the end that what arrived is a backup.
    pub(crate) fn looks_once(self) -> bool {
        cfg!(feature = "mutants") && self.0.is_some_and(Mutation::looks_once)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_mutation_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Mutation::ALL.iter().map(|mutation| mutation.name()).collect();
        assert_eq!(names.len(), Mutation::ALL.len());
    }

    #[test]
    fn a_sound_client_has_none() {
        assert!(Mutation::ALL.iter().all(|mutation| !Weakness::NONE.is(*mutation)));
        assert!(!Weakness::NONE.looks_once());
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn a_mutant_has_one() {
        let weakness = Weakness::of(Mutation::TrustsNames);
        assert!(Mutation::ALL.iter().all(|mutation| weakness.is(*mutation) == (*mutation == Mutation::TrustsNames)));
    }
}
