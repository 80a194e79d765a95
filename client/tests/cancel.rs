//! Who gives up tells the server, which would otherwise go on with what nobody waits for.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use backstop_scenarios::postgres::{Installation, Postgres, reachable};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn an_interrupt_ends_the_backup_on_the_server_too() {
    let Some(installation) = Installation::find("an interrupted backup") else { return };
    let scratch = installation.scratch();
    // The checkpoint is spread over the better part of an hour.
    let settings = ["checkpoint_timeout = 1h", "checkpoint_completion_target = 0.9"];
    let server = Postgres::new(&installation, scratch.path(), &settings);
    server.sql("create table t as select generate_series(1, 200000) as i");
    let client = reachable(Path::new(env!("CARGO_BIN_EXE_backstop-client")), scratch.path());
    let target = scratch.path().join("backup");
    for signal in [Signal::INT, Signal::TERM] {
        let mut command = installation.command(&client);
        command
            .args(["basebackup", "-v", "-Xnone", "-U", "postgres", "-h"])
            .arg(server.socket())
            .arg("-D")
            .arg(&target);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.ends_with("waiting for checkpoint to complete")));
        // The server has begun what it would go on with.
        while server.sql("select count(*) from pg_stat_activity where query like 'BASE_BACKUP%' and state = 'active'")
            == "0"
        {}
        kill_process(Pid::from_child(&child), signal).unwrap();
        let rest: Vec<String> = lines.collect();
        assert!(rest.iter().any(|line| line.contains("error: canceled by ")), "{rest:?}");
        assert_eq!(child.wait().unwrap().code(), Some(1));
        assert!(!target.exists());
        while server.sql("select count(*) from pg_stat_activity where backend_type = 'walsender'") != "0" {}
    }
    assert_eq!(server.log().matches("canceling statement due to user request").count(), 2, "{}", server.log());
}
