//! Putting up the server of a case: its files, its roles, what is in it, and a standby if that is what the scenario wants.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstop_protocol::timeline::TimelineId;
use backstop_protocol::wal_file::{WalFileName, WalSegmentSize};

use super::configuration::{DIRECTORY_MODE, GROUP_MODE, SUPERUSER};
use super::process::Process;
use super::running::Server;
use super::{LocalPostgres, NEW_CLUSTER, PORTS, TemplateKey, configuration, failed, succeed};
use crate::scenario::Case;
use crate::scenario::model::{FileKind, Slot, Tablespace};

/// A case that is being put up in `place`.
pub(super) struct Setting<'a> {
    pub(super) local: &'a LocalPostgres,
    pub(super) case: &'a Case,
    pub(super) place: &'a Path,
}

impl Setting<'_> {
    /// A data directory of its own, of which the server was never started.
    pub(super) fn cluster(&self) -> Result<(PathBuf, WalSegmentSize), String> {
        let scenario = &self.case.scenario;
        let size = scenario.server.wal_segment_size.0;
        let segment_size =
            WalSegmentSize::new(size).ok_or_else(|| format!("{size} bytes are no size of WAL segments"))?;
        let data = self.place.join("data");
        let group_access = scenario.server.settings.get(DIRECTORY_MODE).is_some_and(|mode| mode == GROUP_MODE);
        let key = TemplateKey { checksums: scenario.server.checksums, segment_size: size, group_access };
        let template = self.local.template(key)?;
        self.copy(&template.join("data"), &data)?;
        if let Some(start) = scenario.cluster.wal_start {
            let name = WalFileName::holding(TimelineId::FIRST, start, segment_size).to_string();
            self.reset(&data, &["-l", &name])?;
        }
        let append = |name: &str, text: &str| {
            let opened = OpenOptions::new().append(true).open(data.join(name));
            opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed(name))
        };
        append("postgresql.conf", &configuration::settings(scenario))?;
        fs::write(data.join("pg_hba.conf"), configuration::rules(scenario)).map_err(failed("pg_hba.conf"))?;
        for file in &scenario.cluster.files {
            self.file(&data.join(&file.path), &file.kind).map_err(failed(&file.path))?;
        }
        Ok((data, segment_size))
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<(), String> {
        succeed(self.local.installation.as_server("cp").arg("-a").arg(from).arg(to), "cp")
    }

    fn reset(&self, data: &Path, arguments: &[&str]) -> Result<(), String> {
        succeed(self.local.installation.server_tool("pg_resetwal").args(arguments).arg("-D").arg(data), "pg_resetwal")
    }

    /// A file that is not PostgreSQL's.
    fn file(&self, path: &Path, kind: &FileKind) -> io::Result<()> {
        let give = |path: &Path| self.local.installation.give(path);
        let mut above = Vec::new();
        let mut parent = path.parent();
        while let Some(missing) = parent.filter(|parent| !parent.exists()) {
            above.push(missing);
            parent = missing.parent();
        }
        for missing in above.into_iter().rev() {
            fs::create_dir(missing)?;
            give(missing)?;
        }
        let mode = |bits| fs::set_permissions(path, fs::Permissions::from_mode(bits));
        match kind {
            FileKind::Text(text) => fs::write(path, text).and_then(|()| mode(0o600))?,
            FileKind::Sparse(size) => {
                File::create(path).and_then(|file| file.set_len(size.0)).and_then(|()| mode(0o600))?;
            }
            FileKind::Directory if path.is_dir() => {}
            FileKind::Directory => fs::create_dir(path).and_then(|()| mode(0o700))?,
            FileKind::Special => {
                rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0)?;
            }
        }
        give(path)
    }

    /// Lets the tablespaces lie below the place of the case.
    pub(super) fn own_tablespaces(&self, case: &mut Case) {
        let below = self.place.join("ts").display().to_string();
        let scenario = Arc::make_mut(&mut case.scenario);
        for space in scenario.cluster.tablespaces.iter_mut().filter(|space| !is_in_place(space)) {
            space.location = format!("{below}{}", space.location);
        }
    }

    /// A server with everything that the scenario says of it, once it has all been written to disk.
    pub(super) async fn furnished(&self, data: &Path) -> Result<Server, String> {
        let scenario = &self.case.scenario;
        let mut spaces = scenario.cluster.tablespaces.clone();
        spaces.sort_unstable_by_key(|space| space.oid);
        if let Some(first) = spaces.first() {
            self.reset(data, &["-o", &first.oid.to_string()])?;
        }
        let mut server = self.start(data).await?;
        let mut next = spaces.first().map(|space| space.oid);
        for space in &spaces {
            if next != Some(space.oid) {
                server.stop().await?;
                self.reset(data, &["-o", &space.oid.to_string()])?;
                server = self.start(data).await?;
            }
            next = space.oid.checked_add(1);
            self.tablespace(&server, space).await?;
        }
        for _ in 1..scenario.server.timeline {
            server.stop().await?;
            self.write(&data.join("standby.signal"), "")?;
            server = self.start(data).await?;
            let mut sql = server.sql().await?;
            sql.run("SELECT pg_promote()").await?;
            sql.close().await;
        }
        let mut sql = server.sql().await?;
        for statement in configuration::roles(scenario) {
            sql.run(&statement).await?;
        }
        let more = scenario.cluster.size.0.saturating_sub(NEW_CLUSTER);
        if more > 0 {
            sql.run(&configuration::load("load", more, None)).await?;
        }
        for space in &spaces {
            let name = format!("space_{}", space.oid);
            sql.run(&configuration::load(&name, space.size.0, Some(&name))).await?;
        }
        // Nothing is left to be written to a page when somebody reads it.
        sql.run("VACUUM (FREEZE)").await?;
        sql.run("CHECKPOINT").await?;
        sql.close().await;
        Ok(server)
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), String> {
        let written = fs::write(path, text).and_then(|()| self.local.installation.give(path));
        written.map_err(failed(&path.display().to_string()))
    }

    async fn tablespace(&self, server: &Server, space: &Tablespace) -> Result<(), String> {
        let name = format!("space_{}", space.oid);
        let mut sql = server.sql().await?;
        let location = if is_in_place(space) {
            sql.run("SET allow_in_place_tablespaces = on").await?;
            ""
        } else {
            // Parents, too, must be the server's to be found.
            let path = Path::new(&space.location);
            let below = path.ancestors().take_while(|above| above.starts_with(self.place) && !above.exists());
            for missing in below.collect::<Vec<_>>().into_iter().rev() {
                let made = fs::create_dir(missing).and_then(|()| self.local.installation.give(missing));
                made.map_err(failed("could not make the directory of a tablespace"))?;
            }
            &space.location
        };
        let (name_, location) = (configuration::identifier(&name), configuration::literal(location));
        sql.run(&format!("CREATE TABLESPACE {name_} LOCATION {location}")).await?;
        let found = sql.rows(&format!("SELECT oid FROM pg_tablespace WHERE spcname = '{name}'")).await?;
        sql.close().await;
        let found = found.into_iter().flatten().flatten().next().unwrap_or_default();
        if found == space.oid.to_string() {
            return Ok(());
        }
        Err(format!("the server gave a tablespace the OID {found} instead of {}", space.oid))
    }

    /// That server again, whose files lie in `data` and which has been stopped, a standby of it, and the segment that its WAL has begun.
    pub(super) async fn standby(&self, data: &Path, size: WalSegmentSize) -> Result<(Server, Server, u64), String> {
        let own = self.place.join("standby");
        self.copy(data, &own)?;
        let primary = self.start(data).await?;
        self.write(&own.join("standby.signal"), "")?;
        let socket = primary.socket.display();
        let line = format!("primary_conninfo = 'host={socket} port={} user={SUPERUSER}'\n", primary.port);
        let opened = OpenOptions::new().append(true).open(own.join("postgresql.conf"));
        opened.and_then(|mut file| file.write_all(line.as_bytes())).map_err(failed("postgresql.conf"))?;
        let standby = self.start(&own).await?;
        let mut sql = primary.sql().await?;
        // The standby has it all, and a restartpoint from which backups begin.
        sql.run("CHECKPOINT").await?;
        let segment = sql.begin_segment(size).await?;
        let end = sql.rows("SELECT pg_current_wal_lsn()").await?.into_iter().flatten().flatten().next();
        sql.close().await;
        let mut sql = standby.sql().await?;
        sql.replayed(&end.unwrap_or_default()).await?;
        sql.run("CHECKPOINT").await?;
        sql.close().await;
        Ok((primary, standby, segment))
    }

    /// Starts a server on a port that is free now.
    async fn start(&self, data: &Path) -> Result<Server, String> {
        let name = data.file_name().unwrap_or_default().to_string_lossy();
        let socket = self.place.join(format!("s-{name}"));
        if !socket.exists() {
            let made = fs::create_dir(&socket).and_then(|()| self.local.installation.give(&socket));
            made.map_err(failed("could not make a directory"))?;
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
            let port = free.map_err(failed("no port is free"))?.port();
            let text = format!(
                "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\n",
                socket.display()
            );
            // The last file that is read: ALTER SYSTEM has no reason to be used here.
            self.write(&data.join("postgresql.auto.conf"), &text)?;
            let process = Process::start(&self.local.installation, data);
            let mut process = process.map_err(failed("could not run postgres"))?;
            match process.ready(1).await {
                Ok(()) => {
                    return Ok(Server::new(self.local.installation.clone(), data.to_owned(), socket, port, process));
                }
                Err(_) if process.lost_its_port() && attempt < PORTS => {}
                Err(problem) => return Err(problem),
            }
        }
    }

    pub(super) fn existing_slots(&self) -> Vec<String> {
        let version = self.case.scenario.server.version;
        let slots = self.case.scenario.clients.iter().map(|client| client.slot_on(version));
        let names = slots.filter_map(|slot| if let Slot::Existing(name) = slot { Some(name) } else { None });
        // Clients may share one.
        names.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }
}

/// Whether it lies in `pg_tblspc` itself.
fn is_in_place(space: &Tablespace) -> bool {
    space.location.starts_with("pg_tblspc/")
}
