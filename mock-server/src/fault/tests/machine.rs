//! Kill-client, fill-disk, fail-fsync, protect-disk, start-client; client-end.

use backstop_protocol::version::ServerVersion;

use super::COMMAND;
use crate::fault::{Action, Signal};
use crate::testing::{Client, End, fault, server};

const MIDDLE: &str = r#"{"archive-data": {"archive": "base.tar", "at": "50%"}}"#;

#[tokio::test(start_paused = true)]
async fn the_session_waits_until_it_is_done() {
    for (action, name) in [
        (r#"{"kill-client": {"signal": "SIGTERM"}}"#, "kill-client"),
        (r#"{"fill-disk": {"after": "1MiB"}}"#, "fill-disk"),
        (r#"{"fail-fsync": {}}"#, "fail-fsync"),
        (r#"{"protect-disk": {}}"#, "protect-disk"),
    ] {
        let server = server(ServerVersion::V18, vec![fault(MIDDLE, action)]);
        let mut orders = server.client_orders();
        let mut client = Client::start(&server, "mine").await;
        let backup = client.query(COMMAND);
        tokio::pin!(backup);
        let order = tokio::select! {
            order = orders.recv() => order.unwrap(),
            _ = &mut backup => panic!("{name} did not hold the session"),
        };
        assert_eq!((order.client.as_str(), order.action.name()), ("mine", name));
        drop(order);
        assert_eq!(backup.await.1, End::Ready, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_may_be_about_another_client_than_the_one_at_its_point() {
    let kill = fault(MIDDLE, r#"{"kill-client": {"client": "other", "signal": "SIGKILL"}}"#);
    let server = server(ServerVersion::V18, vec![kill]);
    let mut orders = server.client_orders();
    let mut client = Client::start(&server, "mine").await;
    let (_, order) =
        tokio::join!(client.query(COMMAND), async { orders.recv().await.map(|order| (order.client, order.action)) });
    let action = Action::KillClient { client: Some("other".to_owned()), signal: Signal::Kill };
    assert_eq!(order, Some(("other".to_owned(), action)));
}

#[tokio::test(start_paused = true)]
async fn a_server_without_clients_of_its_own_says_so_and_goes_on() {
    let server = server(ServerVersion::V18, vec![fault(MIDDLE, r#"{"fill-disk": {}}"#)]);
    let mut client = Client::start(&server, "stranger").await;
    assert_eq!(client.query(COMMAND).await.1, End::Ready);
    let note = "fill-disk: nobody here has that client's machine";
    assert!(server.transcript().iter().any(|event| event.detail == note));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_client_is_a_point() {
    let when = r#"{"client-end": {"client": "first", "nth": 2}}"#;
    let server = server(ServerVersion::V18, vec![fault(when, r#"{"switch-wal": {}}"#)]);
    for name in ["first", "second", "first"] {
        assert!(server.fired().is_empty());
        server.client_ended(name);
    }
    assert_eq!(server.fired().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_clock_reaches_the_machines_of_clients() {
    let action = r#"{"kill-client": {"client": "mine", "signal": "SIGSTOP"}}"#;
    let server = server(ServerVersion::V18, vec![fault(r#"{"clock": {"at": "5s"}}"#, action)]);
    let mut orders = server.client_orders();
    let _client = Client::start(&server, "mine").await;
    assert_eq!(orders.recv().await.unwrap().action.name(), "kill-client");
}
