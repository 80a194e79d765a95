//! Which faults have struck, and which strike now.

use std::collections::BTreeSet;
use std::time::Duration;

use backstop_protocol::lsn::Lsn;

use super::point::names_member;
use super::{Action, Fault, Moment, Point};
use crate::units::Position;

/// What a session has become by its commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Issued BASE_BACKUP.
    Backup,
    /// Issued START_REPLICATION.
    Wal,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Wal => "wal",
        }
    }
}

/// By what a point's `client` knows a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The connection's number, from 1.
    pub(crate) session: u32,
    pub(crate) application_name: Option<String>,
    pub(crate) role: Option<Role>,
}

impl Identity {
    /// Whether this is the client that `name` stands for.
    pub(crate) fn is(&self, name: &str) -> bool {
        match name.strip_prefix('#') {
            Some(number) => number.parse() == Ok(self.session),
            None => self.application_name.as_deref() == Some(name) || self.role.is_some_and(|role| role.name() == name),
        }
    }
}

/// A fault, and how often its point was passed.
#[derive(Debug)]
struct Armed {
    fault: Fault,
    passed: u32,
    fired: bool,
}

impl Armed {
    fn concerns(&self, who: &Identity) -> bool {
        !self.fired && self.fault.when.client().is_none_or(|client| who.is(client))
    }

    /// Counts a passage of the point, and says whether this is the one.
    fn pass(&mut self) -> Option<Action> {
        self.passed = self.passed.saturating_add(1);
        self.fired = self.passed == self.fault.when.nth();
        self.fired.then(|| self.fault.r#do.clone())
    }
}

/// A byte at which a fault may strike: the answer to "what lies ahead in this archive".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stop {
    /// An offset in the archive or manifest, or a position in WAL.
    pub(crate) at: u64,
    /// Index of the fault.
    fault: usize,
}

/// All faults of a server.
#[derive(Debug)]
pub(crate) struct Plan {
    faults: Vec<Armed>,
    /// Whether any fault counts messages: otherwise nobody needs to ask for each of them.
    counts_messages: bool,
}

impl Plan {
    pub(crate) fn new(faults: &[Fault]) -> Self {
        let counts_messages = faults.iter().any(|fault| matches!(fault.when, Point::Message { .. }));
        let armed = |fault: &Fault| Armed { fault: fault.clone(), passed: 0, fired: false };
        Self { faults: faults.iter().map(armed).collect(), counts_messages }
    }

    /// Indexes of the faults that have struck.
    pub(crate) fn fired(&self) -> BTreeSet<usize> {
        self.faults.iter().enumerate().filter(|(_, armed)| armed.fired).map(|(index, _)| index).collect()
    }

    pub(crate) fn counts_messages(&self) -> bool {
        self.counts_messages
    }

    /// Whether every fault has struck, so that nobody needs to ask any more.
    pub(crate) fn is_spent(&self) -> bool {
        self.faults.iter().all(|armed| armed.fired)
    }

    /// The actions to take at `moment`, in the order of the plan.
    pub(crate) fn ask(&mut self, moment: Moment<'_>, who: &Identity) -> Vec<Action> {
        let struck = self.faults.iter_mut().filter(|armed| armed.concerns(who) && moment.is_at(&armed.fault.when));
        struck.filter_map(Armed::pass).collect()
    }

    /// The action to take when the byte of `stop` comes.
    pub(crate) fn reach(&mut self, stop: Stop, who: &Identity) -> Option<Action> {
        self.faults.get_mut(stop.fault).filter(|armed| armed.concerns(who)).and_then(Armed::pass)
    }

    fn stops(&self, who: &Identity, at: impl Fn(&Point) -> Option<u64>) -> Vec<Stop> {
        let concerned = self.faults.iter().enumerate().filter(|(_, armed)| armed.concerns(who));
        let mut stops: Vec<_> =
            concerned.filter_map(|(fault, armed)| Some(Stop { at: at(&armed.fault.when)?, fault })).collect();
        stops.sort_unstable();
        stops
    }

    /// Whether a fault is about a percentage of `archive`, so that its size must be known before it is sent.
    pub(crate) fn needs_size_of(&self, archive: &str, who: &Identity) -> bool {
        self.faults.iter().filter(|armed| armed.concerns(who)).any(|armed| {
            matches!(&armed.fault.when, Point::ArchiveData { archive: wanted, at: Position::Percent(_), .. }
                if wanted.as_ref().is_none_or(|wanted| wanted == archive))
        })
    }

    /// Whether a fault is about a percentage of the manifest.
    pub(crate) fn needs_size_of_manifest(&self, who: &Identity) -> bool {
        let concerned = self.faults.iter().filter(|armed| armed.concerns(who));
        concerned
            .map(|armed| &armed.fault.when)
            .any(|point| matches!(point, Point::ManifestData { at: Position::Percent(_), .. }))
    }

    /// The bytes of `archive`, which has `size` bytes, at which a fault may strike, ascending.
    pub(crate) fn stops_in_archive(&self, name: &str, size: u64, who: &Identity) -> Vec<Stop> {
        self.stops(who, |point| match point {
            Point::ArchiveData { archive, at, .. } if archive.as_ref().is_none_or(|wanted| wanted == name) => {
                offset(*at, size)
            }
            _ => None,
        })
    }

    /// The same in the content of a member, which begins at `start` of the archive.
    pub(crate) fn stops_in_member(&self, name: &[u8], path: &[u8], start: u64, size: u64, who: &Identity) -> Vec<Stop> {
        self.stops(who, |point| match point {
            Point::Member { path: wanted, at: Some(at), .. } if names_member(wanted, name, path) => {
                offset(*at, size).map(|offset| start.saturating_add(offset))
            }
            _ => None,
        })
    }

    /// The same in a manifest of `size` bytes.
    pub(crate) fn stops_in_manifest(&self, size: u64, who: &Identity) -> Vec<Stop> {
        self.stops(who, |point| match point {
            Point::ManifestData { at, .. } => offset(*at, size),
            _ => None,
        })
    }

    /// The positions of streamed WAL, from `start` on, at which a fault may strike, ascending. A stream that begins beyond a
    /// position never comes to it.
    pub(crate) fn stops_in_wal(&self, start: Lsn, who: &Identity) -> Vec<Stop> {
        self.stops(who, |point| match point {
            Point::WalData { lsn, .. } if *lsn >= start => Some(lsn.0),
            _ => None,
        })
    }

    /// When the faults of the clock strike, ascending, with what [`strike`](Self::strike) needs.
    pub(crate) fn alarms(&self) -> Vec<(Duration, usize)> {
        let alarms = self.faults.iter().enumerate().filter_map(|(index, armed)| match &armed.fault.when {
            Point::Clock { at, .. } => Some((at.0, index)),
            _ => None,
        });
        let mut alarms: Vec<_> = alarms.collect();
        alarms.sort_unstable();
        alarms
    }

    /// Fires a fault of the clock: the action, and whose connections it is about.
    pub(crate) fn strike(&mut self, index: usize) -> Option<(Action, Option<String>)> {
        let armed = self.faults.get_mut(index).filter(|armed| !armed.fired)?;
        armed.fired = true;
        Some((armed.fault.r#do.clone(), armed.fault.when.client().map(str::to_owned)))
    }
}

/// The byte that a position stands for, unless it lies beyond the end.
fn offset(at: Position, size: u64) -> Option<u64> {
    match at {
        Position::Percent(_) => Some(at.of(size)),
        Position::Bytes(bytes) => (bytes.0 <= size).then_some(bytes.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::wire::Close;

    fn ready(client: Option<&str>, nth: u32) -> Fault {
        Fault { when: Point::Ready { client: client.map(str::to_owned), nth }, r#do: Action::Close(Close {}) }
    }

    fn session(number: u32, name: &str, role: Option<Role>) -> Identity {
        Identity { session: number, application_name: Some(name.to_owned()), role }
    }

    #[test]
    fn counts_the_passages_of_those_it_concerns() {
        let mut plan = Plan::new(&[ready(Some("wal"), 2)]);
        let (backup, wal) = (session(1, "x", Some(Role::Backup)), session(2, "x", Some(Role::Wal)));
        let mut asks = |who| plan.ask(Moment::Ready, who).len();
        assert_eq!([asks(&wal), asks(&backup), asks(&wal), asks(&wal)], [0, 0, 1, 0]);
        assert_eq!(plan.fired().into_iter().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn knows_clients_by_name_role_and_number() {
        let who = session(2, "pg_basebackup", Some(Role::Wal));
        for client in ["pg_basebackup", "wal", "#2"] {
            assert!(who.is(client), "{client}");
        }
        for client in ["backup", "#1", "2", ""] {
            assert!(!who.is(client), "{client}");
        }
    }

    #[test]
    fn finds_the_bytes_ahead_in_order() {
        let at = |archive: Option<&str>, at: &str| Fault {
            when: Point::ArchiveData {
                client: None,
                nth: 1,
                archive: archive.map(str::to_owned),
                at: at.parse().unwrap(),
            },
            r#do: Action::Close(Close {}),
        };
        let plan = Plan::new(&[at(None, "50%"), at(Some("base.tar"), "8KiB"), at(Some("16400.tar"), "1B")]);
        let who = Identity::default();
        let stops = |name, size| plan.stops_in_archive(name, size, &who).iter().map(|stop| stop.at).collect::<Vec<_>>();
        assert_eq!(stops("base.tar", 1 << 20), [8192, 1 << 19]);
        assert_eq!(stops("16400.tar", 512), [1, 256]);
        assert!(plan.needs_size_of("base.tar", &who));
    }
}
