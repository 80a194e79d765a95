//! Who can do what a fault does: before anybody listens, every fault is known to be possible.

use crate::fault::{Action, Fault, Point};

/// Who carries out an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// The proxy, in the bytes that pass.
    Stream,
    /// The server, asked over a connection of the proxy's own.
    Server,
    /// Whoever runs the clients.
    Clients,
    /// Nobody.
    Nobody(&'static str),
}

/// Who carries out the action of `fault`, where somebody runs the clients and tells of them, or nobody does.
pub(super) fn means(fault: &Fault, runs_clients: bool) -> Means {
    if runs_clients && fault.r#do.client_machine().is_some() {
        return Means::Clients;
    }
    if !runs_clients && matches!(fault.when, Point::ClientEnd { .. }) {
        return Means::Nobody("a proxy does not see when a client ends, only when its connections do");
    }
    match &fault.r#do {
        Action::Delay(_)
        | Action::Stall(_)
        | Action::Throttle(_)
        | Action::Chop(_)
        | Action::Close(_)
        | Action::Reset(_)
        | Action::Garble(_)
        | Action::Drop(_)
        | Action::Repeat(_)
        | Action::Swap(_)
        | Action::Insert(_)
        | Action::Truncate(_)
        | Action::Error(_)
        | Action::Notice(_)
        | Action::ChangeRow(_)
        | Action::ChangeParameter(_)
        | Action::RenameMember(_)
        | Action::RetypeMember(_)
        | Action::RelinkMember(_)
        | Action::ResizeHeader(_)
        | Action::RemodeMember(_)
        | Action::WriteHeader(_)
        | Action::BreakHeader(_)
        | Action::OmitMember(_)
        | Action::OmitArchive(_)
        | Action::OmitTrailer(_)
        | Action::ExtraMember(_) => Means::Stream,
        Action::Terminate(_)
        | Action::Shutdown(_)
        | Action::Crash(_)
        | Action::Promote(_)
        | Action::RecycleWal(_)
        | Action::SwitchWal(_)
        | Action::DropSlot(_)
        | Action::StartBackup(_)
        | Action::StopBackup(_)
        | Action::AbortBackup(_)
        | Action::RemoveFile(_)
        | Action::ShrinkFile(_)
        | Action::GrowFile(_)
        | Action::ChangeFile(_)
        | Action::AddFile(_)
        | Action::KillClient(_)
        | Action::FillDisk(_)
        | Action::FailFsync(_)
        | Action::ProtectDisk(_)
        | Action::StartClient(_) => Means::Server,
        Action::RewriteMember(_) | Action::ChangeControl(_) => {
            Means::Nobody("the manifest of a real server tells of the member as it was: only the mock can change both")
        }
    }
}
