//! A script of a day's work with PostgreSQL's four tools runs unchanged where their names are ours, and says the same.

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::Path;

use backstop_scenarios::postgres::{Installation, reachable, succeed};

const NAMES: [&str; 4] = ["pg_basebackup", "pg_receivewal", "pg_verifybackup", "pg_combinebackup"];

/// Sets up a standby, archives WAL, takes a full and an incremental backup, combines them, restores and starts.
const SCRIPT: &str = r#"
set -eu
work=$1
cd "$work"
export PGHOST="$work" PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
sql() { psql -XAtq -v ON_ERROR_STOP=1 "$@"; }
stop() { pg_ctl stop -w -s -m "$2" -D "$1"; }
start() { pg_ctl start -w -s -l "$1.log" -o "-k $work -p $2 -c listen_addresses=" -D "$1" >/dev/null; }
trap 'for d in primary standby restored; do [ ! -f $d/postmaster.pid ] || stop $d immediate; done' EXIT

initdb -N -A trust -U postgres --wal-segsize=1 -D primary >/dev/null
printf '%s\n' 'summarize_wal = on' 'fsync = off' 'wal_keep_size = 64MB' 'wal_summary_keep_time = 1d' >> primary/postgresql.conf
start primary 5432
sql -c 'create table t as select generate_series(1, 1000) as i'

mkdir archive
pg_receivewal --slot=archive --create-slot --if-not-exists
pg_receivewal -D archive -S archive --no-loop &
receiver=$!

pg_basebackup -D standby -c fast -R --create-slot --slot=standby -X stream -N
start standby 5433

pg_basebackup --pgdata=full --checkpoint=fast --label 'monday' -N
pg_verifybackup full
sql -c 'insert into t select generate_series(1001, 2000)' -c 'create table u as select 1 as i'
pg_basebackup -D incremental -i full/backup_manifest -cfast -N
pg_verifybackup incremental
sql -c 'insert into t select generate_series(2001, 3000)'
end=$(sql -c 'select pg_current_wal_lsn()')
sql -c 'select pg_switch_wal()' >/dev/null

kill -INT $receiver
wait $receiver
# On from where that one stopped.
pg_receivewal -D archive -S archive --endpos="$end" --no-loop
sql -c 'insert into t values (0)'
switched=$(sql -c 'select pg_switch_wal()')
pg_receivewal -D archive -S archive --endpos="$switched" --no-loop

pg_combinebackup full incremental -o restored --no-sync
pg_verifybackup restored
# What the standby has not yet got goes to it now.
stop primary fast
pg_ctl promote -w -s -D standby
echo "standby: $(sql -p 5433 -c 'select count(*), sum(i), (select count(*) from u) from t')"
stop standby fast

touch restored/recovery.signal
echo "restore_command = 'cp $work/archive/%f %p'" >> restored/postgresql.conf
echo "recovery_target_timeline = 'current'" >> restored/postgresql.conf
echo "recovery_target_action = promote" >> restored/postgresql.conf
start restored 5434
echo "restored: $(sql -p 5434 -c 'select count(*), sum(i), (select count(*) from u) from t where i > 0')"
ls archive | grep -c '^[0-9A-F]*$' | sed 's/^/segments: at least one: /; s/: [1-9][0-9]*$/: yes/'
"#;

#[test]
fn a_script_runs_unchanged() {
    let Some(installation) = Installation::find_release(18, "a script of the four tools") else { return };
    let run = |path: OsString, work: &Path| {
        let mut shell = installation.command("sh");
        let output = succeed(shell.env("PATH", path).args(["-c", SCRIPT, "sh"]).arg(work));
        // Where in a segment a receiver was when it was told to end is a matter of chance.
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        let unexpected = |line: &&str| !line.ends_with(".partial\", segment is not complete");
        assert_eq!(complaints.lines().find(unexpected), None, "{complaints}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let bin = installation.path("psql").parent().unwrap().to_str().unwrap().to_owned();
    let path = std::env::var("PATH").unwrap_or_default();

    let scratch = installation.scratch();
    let client = reachable(Path::new(env!("CARGO_BIN_EXE_backstop-client")), scratch.path());
    let names = scratch.path().join("names");
    std::fs::create_dir(&names).unwrap();
    for name in NAMES {
        symlink(&client, names.join(name)).unwrap();
    }
    let ours = run(format!("{}:{bin}:{path}", names.display()).into(), scratch.path());

    let scratch = installation.scratch();
    let theirs = run(format!("{bin}:{path}").into(), scratch.path());
    assert_eq!(ours, theirs);
    insta::assert_snapshot!(ours, @r#"
    backup successfully verified
    backup successfully verified
    backup successfully verified
    standby: 3001|4501500|1
    restored: 3000|4501500|1
    segments: at least one: yes
    "#);
}
