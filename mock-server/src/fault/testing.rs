//! What the tests of actions have in common: a backup with a fault, one without, and what is looked at in them.

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::version::ServerVersion;

use super::Fault;
use crate::server::Server;
use crate::testing::{Client, End, archives, fault, server, tags};

pub(crate) const COMMAND: &str =
    "BASE_BACKUP ( LABEL 'x',  CHECKPOINT 'fast',  WAIT 0,  MANIFEST 'yes',  TARGET 'client')";
pub(crate) const MIDDLE: &str = r#"{"archive-data": {"archive": "base.tar", "at": "50%"}}"#;
pub(crate) const MEMBER: &str = r#"{"member": {"path": "PG_VERSION"}}"#;
/// A file of a relation.
pub(crate) const TABLE: &[u8] = b"base/1/1259_fsm";
pub(crate) const ABORTING: &str =
    "WARNING 01000: aborting backup due to backend exiting before pg_backup_stop was called";

/// A backup from a server of version 18 with one fault.
pub(crate) async fn struck(when: &str, action: &str) -> (Server, Vec<BackendMessage>, End) {
    let server = server(ServerVersion::V18, vec![fault(when, action)]);
    let mut client = Client::start(&server, "test").await;
    let (messages, end) = client.query(COMMAND).await;
    assert_eq!(server.fired().len(), 1, "{action} at {when} has not struck");
    (server, messages, end)
}

/// A backup from the same server without faults.
pub(crate) async fn sound() -> Vec<BackendMessage> {
    let server = server(ServerVersion::V18, vec![]);
    let mut client = Client::start(&server, "test").await;
    let (messages, end) = client.query(COMMAND).await;
    assert_eq!(end, End::Ready);
    messages
}

/// An archive of a backup.
pub(crate) fn archive(messages: &[BackendMessage], name: &str) -> Vec<u8> {
    archives(messages).into_iter().find(|(found, _)| found == name).map(|(_, data)| data).unwrap()
}

pub(crate) async fn struck_archive(when: &str, action: &str) -> Vec<u8> {
    let (_, messages, end) = struck(when, action).await;
    assert_eq!((tags(&messages).as_str(), end), ("TDCTDDCHdcTDCCZ", End::Ready));
    archive(&messages, "base.tar")
}

/// The headers of an archive as an independent reader sees them: name, type, size, target.
pub(crate) fn members(archive: &[u8]) -> Vec<(String, tar::EntryType, u64, Option<String>)> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let header = entry.header();
            let target = header.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned());
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            (name, header.entry_type(), header.size().unwrap(), target)
        })
        .collect()
}

/// The header of a member of an archive.
pub(crate) fn header(archive: &[u8], name: &str) -> tar::Header {
    let mut archive = tar::Archive::new(archive);
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    entries.find(|entry| &*entry.path_bytes() == name.as_bytes()).unwrap().header().clone()
}

/// Size and content of the table in an archive, if it is there.
pub(crate) fn table(base: &[u8]) -> Option<Vec<u8>> {
    let mut archive = tar::Archive::new(base);
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entry = entries.find(|entry| &*entry.path_bytes() == TABLE)?;
    let mut content = Vec::new();
    std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
    Some(content)
}

/// Why a fault is refused: what is said of its text, or of what it means.
pub(crate) fn refusal(when: &str, action: &str) -> String {
    match serde_json::from_str::<Fault>(&format!("{{\"when\": {when}, \"do\": {action}}}")) {
        Ok(fault) => fault.validate().unwrap_err(),
        Err(error) => error.to_string(),
    }
}

/// The name of the action that the client's machine is told to take in the middle of a backup, which waits for it.
pub(crate) async fn held(action: &str) -> &'static str {
    let server = server(ServerVersion::V18, vec![fault(MIDDLE, action)]);
    let mut orders = server.client_orders();
    let mut client = Client::start(&server, "mine").await;
    let backup = client.query(COMMAND);
    tokio::pin!(backup);
    let order = tokio::select! {
        order = orders.recv() => order.unwrap(),
        _ = &mut backup => panic!("{action} did not hold the session"),
    };
    let name = order.action.name();
    assert_eq!(order.client, "mine");
    drop(order);
    assert_eq!(backup.await.1, End::Ready, "{action}");
    name
}
