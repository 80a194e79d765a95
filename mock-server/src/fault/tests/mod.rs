//! What the peer observes of each action.

mod answers;
mod archive;
mod everywhere;
mod files;
mod machine;
mod server;
mod validate;
mod wire;

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::version::ServerVersion;

use crate::server::Server;
use crate::testing::{Client, End, archives, fault, server};

const COMMAND: &str = "BASE_BACKUP ( LABEL 'x',  CHECKPOINT 'fast',  WAIT 0,  MANIFEST 'yes',  TARGET 'client')";

/// A backup from a server of version 18 with one fault.
async fn struck(when: &str, action: &str) -> (Server, Vec<BackendMessage>, End) {
    let server = server(ServerVersion::V18, vec![fault(when, action)]);
    let mut client = Client::start(&server, "test").await;
    let (messages, end) = client.query(COMMAND).await;
    assert_eq!(server.fired().len(), 1, "{action} at {when} has not struck");
    (server, messages, end)
}

/// A backup from the same server without faults.
async fn sound() -> Vec<BackendMessage> {
    let server = server(ServerVersion::V18, vec![]);
    let mut client = Client::start(&server, "test").await;
    let (messages, end) = client.query(COMMAND).await;
    assert_eq!(end, End::Ready);
    messages
}

/// An archive of a backup.
fn archive(messages: &[BackendMessage], name: &str) -> Vec<u8> {
    archives(messages).into_iter().find(|(found, _)| found == name).map(|(_, data)| data).unwrap()
}
