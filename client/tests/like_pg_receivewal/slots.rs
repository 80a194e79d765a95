//! Slots: where a receiver begins that finds nothing on disk, and how far the server knows it to be.

use std::path::Path;

use backstop_scenarios::postgres::succeed;

use super::site::{RELEASES, Setup, Tool, is_segment, names};

const TOOLS: [(Tool, &str); 2] = [(Tool::Ours, "ours"), (Tool::Theirs, "theirs")];

/// A column of a slot.
fn slot(setup: &Setup, name: &str, column: &str) -> String {
    setup.server.sql(&format!("select {column} from pg_replication_slots where slot_name = '{name}'"))
}

/// Receives up to `end` through the slot of the tool's name.
fn receive(setup: &Setup, tool: Tool, name: &str, directory: &Path, end: &str) {
    let mut command = setup.tool(tool, &setup.server, &["-n", "--synchronous", "-S", name, "--endpos", end, "-D"]);
    succeed(command.arg(directory));
}

#[test]
fn a_slot_moves_on_with_what_is_received() {
    for release in RELEASES {
        let Some(setup) = Setup::new(release) else { continue };
        for (tool, name) in TOOLS {
            succeed(&mut setup.tool(tool, &setup.server, &["-S", name, "--create-slot"]));
            let kind = slot(&setup, name, "slot_type || ' ' || temporary || ' ' || (restart_lsn is null)");
            assert_eq!(kind, "physical false true", "{release} {tool:?}: it keeps nothing yet");
        }
        let mut before = [String::new(), String::new()];
        for round in 0..3 {
            setup.write(2);
            let end = setup.position();
            for ((tool, name), before) in TOOLS.into_iter().zip(&mut before) {
                receive(&setup, tool, name, &setup.directory(name), &end);
                let after = slot(&setup, name, "restart_lsn");
                // pg_receivewal confirms the beginning of a segment anew, and may end before it has confirmed more.
                let moved = round == 0
                    || matches!(tool, Tool::Theirs)
                    || setup.server.sql(&format!("select '{after}'::pg_lsn > '{before}'")) == "t";
                assert!(moved, "{release} {tool:?} round {round}: {before} to {after}");
                // What the server keeps no longer is here.
                let kept = slot(&setup, name, "pg_walfile_name(restart_lsn)");
                let there =
                    names(&setup.directory(name)).into_iter().any(|name| name.starts_with(&kept) || name > kept);
                assert!(there, "{release} {tool:?}: {kept} of {:?}", names(&setup.directory(name)));
                *before = after;
            }
        }
    }
}

#[test]
fn an_empty_directory_is_filled_from_where_the_slot_is() {
    for release in RELEASES {
        let Some(setup) = Setup::new(release) else { continue };
        for (_, name) in TOOLS {
            setup.server.sql(&format!("select pg_create_physical_replication_slot('{name}', true)"));
        }
        setup.write(4);
        let end = setup.position();
        let kept = TOOLS.map(|(_, name)| slot(&setup, name, "pg_walfile_name(restart_lsn)"));
        let archives = TOOLS.map(|(tool, name)| {
            let directory = setup.directory(name);
            receive(&setup, tool, name, &directory, &end);
            directory
        });
        let found = archives.each_ref().map(|archive| names(archive));
        for (kept, found) in kept.iter().zip(&found) {
            assert_eq!(Some(kept), found.first(), "{release}: {found:?}");
            assert!(found.iter().filter(|name| is_segment(name)).count() >= 3, "{release}: {found:?}");
        }
        assert_eq!(found[0], found[1], "{release}");
        setup.assert_is_the_servers(&archives[0]);
    }
}
