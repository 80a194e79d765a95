//! Real servers: what all of them have in common, whoever runs them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use backstop_client::{Address, NetConnector};
use backstop_mock::proxy::Upstream;
use backstop_mock::transcript::Event;
use backstop_mock::{Server, ServerState};
use tokio::task::JoinHandle;

use super::local_postgres::Local;
use super::passage::{Passage, Passed};
use super::remote::Visit;
use super::sql::State;
use super::starts;
use super::upstream::UpstreamServer;
use crate::cassette::{Player, Recorded};
use crate::oracle::original::Original;
use crate::record::{ClientRecord, FaultRecord, Record};
use crate::scenario::Case;

/// A server that was put up for a case.
#[derive(Debug)]
pub struct Stage {
    /// The case as this server plays it: its tablespaces lie where they can, its faults strike where the server's WAL is.
    pub case: Case,
    /// How the server is reached.
    pub(super) upstream: Arc<dyn Upstream>,
    /// The same, if faults may begin backups there that somebody has to end.
    pub(super) held: Option<Arc<UpstreamServer>>,
    /// The beginnings of paths that differ in every run, and mean nothing.
    pub(super) hidden: Vec<String>,
    pub(super) kind: Kind,
    pub(super) writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Started for the case.
    Local(Box<Local>),
    /// It was there before, and stays.
    Remote(Box<Visit>),
    /// The server, and who accepts its connections.
    Mock(Server, JoinHandle<std::io::Result<()>>),
    /// What plays a cassette.
    Played(Player),
}

/// What remains of a server when its case is over.
pub(super) struct Left {
    pub(super) state: State,
    pub(super) original: Box<dyn Original>,
    /// The end of its log.
    pub(super) log: String,
}

impl Stage {
    /// The mock, listening like any other server.
    pub(super) fn mock(case: Case, server: Server) -> std::io::Result<Self> {
        let listener = server.listen((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = listener.local_addr()?;
        let connector = NetConnector::new([Address::Tcp { host: address.ip().to_string(), port: address.port() }]);
        let kind = Kind::Mock(server, tokio::spawn(listener.run()));
        let upstream = Arc::new(UpstreamServer::mock(connector));
        Ok(Self { case, upstream, held: None, hidden: Vec::new(), kind, writer: None })
    }

    /// A cassette that is played.
    pub fn played(case: Case, player: Player) -> Self {
        let upstream = Arc::new(player.clone());
        Self { case, upstream, held: None, hidden: Vec::new(), kind: Kind::Played(player), writer: None }
    }

    /// Whether a cassette is played.
    pub(super) fn is_played(&self) -> bool {
        matches!(self.kind, Kind::Played(_))
    }

    /// The mock, if that is the server.
    pub(super) fn as_mock(&self) -> Option<&Server> {
        match &self.kind {
            Kind::Mock(server, _) => Some(server),
            Kind::Local(_) | Kind::Remote(_) | Kind::Played(_) => None,
        }
    }

    /// Ends the case, and collects what is left of it and what passed on the way to it.
    pub async fn record(self, passage: Passage, clients: Vec<ClientRecord>) -> Record {
        passage.close();
        if let Some(writer) = self.writer {
            writer.abort();
            // It has come to its end, one way or the other.
            let _ = writer.await;
        }
        if let Some(upstream) = &self.held {
            upstream.let_go().await;
        }
        let Left { state, original, log } = match self.kind {
            Kind::Local(local) => local.leave().await,
            Kind::Remote(visit) => visit.leave().await,
            Kind::Mock(server, accepting) => {
                accepting.abort();
                Left { state: State::of_mock(server.state()), original: Box::new(server), log: String::new() }
            }
            Kind::Played(player) => {
                Left { state: State::default(), original: Box::new(Recorded::new(player)), log: String::new() }
            }
        };
        let Passed { heard, backups, transcript, fired } = passage.passed();
        let faults = self.case.scenario.faults.iter().cloned().enumerate().chain(starts(&self.case));
        let faults = faults.map(|(index, fault)| FaultRecord {
            description: super::description(&fault),
            fired: fired.contains(&index),
        });
        let state: ServerState = state.with(heard.commands);
        let hide = |text: &mut String| {
            for hidden in self.hidden.iter().filter(|hidden| !hidden.is_empty()) {
                if text.contains(hidden.as_str()) {
                    *text = text.replace(hidden.as_str(), "");
                }
            }
        };
        let mut said = heard.said;
        said.values_mut().flatten().flat_map(|said| &mut said.fields).for_each(|(_, value)| hide(value));
        let mut transcript: Vec<Event> = transcript;
        for event in &mut transcript {
            hide(&mut event.detail);
        }
        Record {
            clients,
            original,
            state,
            backups,
            faults: faults.collect(),
            transcript,
            session_counts: heard.counts,
            errors: heard.errors,
            said,
            log,
        }
    }
}
