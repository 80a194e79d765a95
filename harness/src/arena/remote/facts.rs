//! What a server says of itself before anything is played.

use backstop_client::sql::SqlSession;
use backstop_client::{Login, Replication, connect_only};
use backstop_mock::config::Auth;
use backstop_protocol::backend::{Authentication, BackendMessage};
use backstop_protocol::frame::{MAX_FRAME, read_frame};
use backstop_protocol::frontend::{Startup, StartupPacket};
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::WalSegmentSize;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::arena::upstream::{UpstreamServer, patiently};

/// What sessions are told of that is set by administrators and says nothing of the server's make.
const TOLD: [&str; 7] = [
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "default_transaction_read_only",
    "scram_iterations",
    "search_path",
    "standard_conforming_strings",
];

/// What is known.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) version: ServerVersion,
    pub(super) system_identifier: u64,
    pub(super) timeline: u32,
    pub(super) segment_size: WalSegmentSize,
    /// Whether its pages have checksums, if it says so.
    pub(super) checksums: Option<bool>,
    /// How the user has to prove who it is.
    pub(super) auth: Auth,
    /// Whether somebody can ask it in SQL; what follows is guessed without.
    pub(super) asked: bool,
    pub(super) standby: bool,
    pub(super) superuser: bool,
    /// Settings that every session is told of, with the values that administrators gave them.
    pub(super) settings: Vec<(String, String)>,
    /// OIDs and locations.
    pub(super) tablespaces: Vec<(u32, String)>,
}

impl Facts {
    /// Asks the server.
    ///
    /// # Errors
    /// What keeps it from being played against.
    pub(super) async fn of(upstream: &UpstreamServer) -> Result<Self, String> {
        let login = Login { replication: Replication::Physical, ..upstream.login().clone() };
        let auth = method(upstream, &login).await?;
        let mut walsender = patiently(SqlSession::open(upstream.connector(), &login)).await?;
        let announced = walsender.parameter("server_version").unwrap_or_default().to_owned();
        let version = ServerVersion::from_announced(&announced);
        let version = version.ok_or_else(|| format!("the server says that its version is \"{announced}\""))?;
        let told = |name: &&str| walsender.parameter(name).map(|value| ((*name).to_owned(), value.to_owned()));
        let settings = TOLD.iter().filter_map(told).collect();
        let system = patiently(walsender.query("IDENTIFY_SYSTEM")).await;
        let system = system.map_err(|problem| format!("the server is no walsender: {problem}"))?;
        let column = |index: usize| system.first().and_then(|row| row.get(index)).cloned().flatten();
        let wrong = |what: &str| format!("IDENTIFY_SYSTEM answers without a {what}");
        let system_identifier = column(0).and_then(|text| text.parse().ok()).ok_or_else(|| wrong("systemid"))?;
        let timeline = column(1).and_then(|text| text.parse().ok()).ok_or_else(|| wrong("timeline"))?;
        let mut show = async |name: &str| {
            let rows = patiently(walsender.query(&format!("SHOW {name}"))).await.ok()?;
            rows.into_iter().flatten().flatten().next()
        };
        // Before release 10 a walsender shows nothing, and before 11 there is only one size.
        let segment_size = show("wal_segment_size").await.and_then(|text| Self::segment_size(&text));
        let checksums = show("data_checksums").await.map(|text| text == "on");
        walsender.close().await;
        let mut facts = Self {
            version,
            system_identifier,
            timeline,
            segment_size: segment_size.unwrap_or(WalSegmentSize::DEFAULT),
            checksums,
            auth,
            asked: false,
            standby: false,
            superuser: false,
            settings,
            tablespaces: Vec::new(),
        };
        // A user with REPLICATION alone may have no database to connect to.
        if let Ok(mut sql) = upstream.sql().await {
            let rows =
                sql.rows("SELECT pg_is_in_recovery(), rolsuper FROM pg_roles WHERE rolname = current_user").await?;
            let first = |index: usize| rows.first().and_then(|row| row.get(index)).cloned().flatten();
            facts.asked = true;
            facts.standby = first(0).as_deref() == Some("t");
            facts.superuser = first(1).as_deref() == Some("t");
            let spaces = "SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace WHERE oid >= 16384 ORDER BY oid";
            for row in sql.rows(spaces).await? {
                if let [Some(oid), Some(location)] = &row[..]
                    && let Ok(oid) = oid.parse()
                {
                    facts.tablespaces.push((oid, location.clone()));
                }
            }
            sql.close().await;
        }
        Ok(facts)
    }
}

/// What the server asks a walsender's user for.
async fn method(upstream: &UpstreamServer, login: &Login) -> Result<Auth, String> {
    let (mut link, _) = patiently(connect_only(upstream.connector(), login)).await?;
    let parameters = [
        ("user", &*login.user),
        ("database", "replication"),
        ("replication", "true"),
        ("application_name", &*login.application_name),
    ];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let mut packet = BytesMut::new();
    StartupPacket::Startup(Startup { major: 3, minor: 0, parameters }).encode(&mut packet);
    let asking = async {
        link.write_all(&packet).await?;
        link.flush().await?;
        let mut answer = BytesMut::new();
        loop {
            match read_frame(&mut answer, MAX_FRAME) {
                Ok(Some(frame)) => return Ok(BackendMessage::decode(frame)),
                Ok(None) => {}
                Err(error) => return Err(std::io::Error::other(error.to_string())),
            }
            if link.read_buf(&mut answer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    };
    let answer = tokio::time::timeout(std::time::Duration::from_secs(60), asking).await;
    let answer = answer.map_err(|_| "the server does not answer a StartupMessage".to_owned())?;
    match answer.map_err(|error| format!("the server does not answer a StartupMessage: {error}"))? {
        Ok(BackendMessage::Authentication(asked)) => match asked {
            Authentication::Ok => Ok(Auth::Trust),
            Authentication::CleartextPassword => Ok(Auth::Password),
            Authentication::Md5Password { .. } => Ok(Auth::Md5),
            Authentication::Sasl { .. } => Ok(Auth::ScramSha256),
            other => Err(format!("the server asks for a proof that clients here do not give: {other:?}")),
        },
        Ok(BackendMessage::ErrorResponse(diagnostic)) => Err(diagnostic.to_string()),
        Ok(other) => Err(format!("the server answers a StartupMessage with {}", other.name())),
        Err(error) => Err(format!("the server answers a StartupMessage with what is no protocol: {error}")),
    }
}
