//! What logical decoding needs, and what a server says where it is missing.

use backstop_protocol::backend::{Diagnostic, SqlState};
use backstop_protocol::command::{CreateSlot, SlotOptions, SnapshotAction};

use super::output::{TEXT, column, value};
use super::{Session, Stop};
use crate::cluster::LogicalSlot;

/// Output plugins that stand beside every server: `pgoutput` since 10, `test_decoding` among the contributed modules.
const PLUGINS: [&str; 2] = ["pgoutput", "test_decoding"];

impl Session {
    /// `CheckLogicalDecodingRequirements`: the database that is decoded.
    fn decoded_database(&self) -> Result<String, Diagnostic> {
        let refuse = |message: String| Err(Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
        let cluster = &self.shared.cluster;
        if cluster.show("wal_level").is_none_or(|(_, level)| level != "logical") {
            let quoted = self.version.quotes_settings();
            let (name, level) = if quoted { ("\"wal_level\"", "\"logical\"") } else { ("wal_level", "logical") };
            return refuse(format!("logical decoding requires {name} >= {level}"));
        }
        let Some(database) = self.database.clone() else {
            return refuse("logical decoding requires a database connection".to_owned());
        };
        if cluster.in_recovery() && !self.version.decodes_on_standby() {
            let message = "logical decoding cannot be used while in recovery";
            return Err(Diagnostic::error(SqlState::FEATURE_NOT_SUPPORTED, message));
        }
        Ok(database)
    }

    /// CREATE_REPLICATION_SLOT … LOGICAL.
    pub(super) async fn create_logical_slot(
        &mut self,
        create: &CreateSlot,
        plugin: &str,
        options: SlotOptions,
    ) -> Result<(), Stop> {
        let SlotOptions { two_phase, failover, snapshot, .. } = options;
        let slot = LogicalSlot { two_phase, failover, ..LogicalSlot::new(plugin, &self.decoded_database()?) };
        let (cluster, pid) = (self.shared.cluster.clone(), self.seat.pid);
        let consistent = cluster.create_logical_slot(&create.slot, create.temporary, pid, slot)?;
        if !PLUGINS.contains(&plugin) || (plugin == "pgoutput" && !self.version.has_pgoutput()) {
            // The slot exists before its plugin is loaded, and goes with the error.
            cluster.drop_slot(&create.slot, pid, false).await?;
            let message = format!("could not access file \"{plugin}\": No such file or directory");
            return Err(Diagnostic::error(SqlState::UNDEFINED_FILE, message).into());
        }
        // `ExportSnapshot` names it by the virtual transaction that holds it and a number.
        let exported = (snapshot == SnapshotAction::Export).then(|| {
            let number = self.seat.number;
            value(if self.version.names_snapshots_by_process() {
                format!("{number:08X}-00000003-1")
            } else {
                format!("{number:08X}-1")
            })
        });
        let names = ["slot_name", "consistent_point", "snapshot_name", "output_plugin"];
        let columns = names.map(|name| column(name, TEXT, -1)).to_vec();
        let row = vec![Some(value(&create.slot)), Some(value(consistent)), exported, Some(value(plugin))];
        self.rows(columns, vec![row]).await
    }

    /// START_REPLICATION … LOGICAL: everything that PostgreSQL refuses before it decodes. This server has no tables whose
    /// changes it could decode.
    pub(super) fn start_logical(&self, slot: &str) -> Stop {
        let undecoded = || Diagnostic::error(SqlState::FEATURE_NOT_SUPPORTED, "this server does not decode changes");
        self.refuse_logical(slot).err().unwrap_or_else(undecoded).into()
    }

    fn refuse_logical(&self, name: &str) -> Result<(), Diagnostic> {
        let refuse = |message: String| Err(Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
        let database = self.decoded_database()?;
        let (cluster, pid) = (&self.shared.cluster, self.seat.pid);
        let slot = cluster.acquire_slot(name, pid)?;
        // Nothing is decoded: it is not needed for longer.
        cluster.release_slot(name, pid);
        match slot.logical {
            None => refuse("cannot use physical replication slot for logical decoding".to_owned()),
            Some(logical) if logical.database != database => {
                refuse(format!("replication slot \"{name}\" was not created in this database"))
            }
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::frontend::{Startup, StartupPacket};
    use backstop_protocol::version::ServerVersion;

    use crate::config::{Config, Role};
    use crate::server::Server;
    use crate::testing::{Client, End, config, diagnostics};

    async fn client(version: ServerVersion, role: Role, database: &str) -> (Server, Client) {
        let mut config = Config { role, ..config(version, vec![]) };
        config.settings.insert("wal_level".to_owned(), "logical".to_owned());
        let server = Server::new(config).unwrap();
        let client = connect(&server, database).await;
        (server, client)
    }

    async fn connect(server: &Server, database: &str) -> Client {
        let mut client = Client::connect(server);
        let parameters = [("user", "postgres"), ("replication", "database"), ("database", database)];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        client.packet(&StartupPacket::Startup(Startup { major: 3, minor: 0, parameters })).await;
        assert_eq!(client.read().await.1, End::Ready);
        client
    }

    async fn told(client: &mut Client, command: &str) -> Vec<String> {
        diagnostics(&client.query(command).await.0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_of_its_kind_and_of_its_database() {
        let (server, mut client) = client(ServerVersion::V17, Role::Primary, "postgres").await;
        assert_eq!(told(&mut client, "CREATE_REPLICATION_SLOT p PHYSICAL").await, [""; 0]);
        assert_eq!(told(&mut client, "CREATE_REPLICATION_SLOT l LOGICAL pgoutput").await, [""; 0]);
        let slots = server.state().slots;
        let logical: Vec<_> = slots.iter().map(|slot| slot.logical.as_ref().map(|slot| slot.plugin.as_str())).collect();
        assert_eq!(logical, [Some("pgoutput"), None]);
        assert_eq!(
            told(&mut client, "START_REPLICATION SLOT p LOGICAL 0/0").await,
            ["ERROR 55000: cannot use physical replication slot for logical decoding"]
        );
        assert_eq!(
            told(&mut client, "START_REPLICATION SLOT l PHYSICAL 0/0").await,
            ["ERROR 55000: cannot use a logical replication slot for physical replication"]
        );
        let mut other = connect(&server, "template1").await;
        assert_eq!(
            told(&mut other, "START_REPLICATION SLOT l LOGICAL 0/0").await,
            ["ERROR 55000: replication slot \"l\" was not created in this database"]
        );
        assert!(server.state().slots.iter().all(|slot| slot.active_pid.is_none()));
    }

    #[tokio::test(start_paused = true)]
    async fn failover_is_for_slots_that_stay() {
        let (server, mut client) = client(ServerVersion::V17, Role::Primary, "postgres").await;
        let refusal = ["ERROR 0A000: cannot enable failover for a temporary replication slot"];
        let create = "CREATE_REPLICATION_SLOT t TEMPORARY LOGICAL pgoutput";
        assert_eq!(told(&mut client, &format!("{create} (FAILOVER)")).await, refusal);
        assert_eq!(told(&mut client, create).await, [""; 0]);
        assert_eq!(told(&mut client, "ALTER_REPLICATION_SLOT t (FAILOVER)").await, refusal);
        assert_eq!(told(&mut client, "CREATE_REPLICATION_SLOT l LOGICAL pgoutput").await, [""; 0]);
        assert_eq!(told(&mut client, "ALTER_REPLICATION_SLOT l (FAILOVER)").await, [""; 0]);
        let slots = server.state().slots;
        assert!(slots.iter().any(|slot| slot.logical.as_ref().is_some_and(|logical| logical.failover)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_standby_decodes_since_16() {
        let refusal = ["ERROR 0A000: logical decoding cannot be used while in recovery"];
        for (version, expected) in [(ServerVersion::V15, &refusal[..]), (ServerVersion::V16, &[])] {
            let (_server, mut client) = client(version, Role::Standby, "postgres").await;
            assert_eq!(told(&mut client, "CREATE_REPLICATION_SLOT l LOGICAL pgoutput").await, expected);
        }
    }
}
