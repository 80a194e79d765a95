//! `backstop run`

use std::collections::BTreeSet;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use tokio::sync::mpsc;

use super::progress::{Bar, Beside};
use super::{CANCELLED, Failure, Root, cancel};
use crate::event::Event;
use crate::golden::{self, Bless};
use crate::known::KnownFaults;
use crate::plan::{RunPlan, ServerSpec, SubjectSpec};
use crate::report::{Report, ReportError, ReportSpec, Terminal};
use crate::runner;
use crate::scenario::select::{Partition, Selection};

const EXAMPLE: &str = "\
Examples:
  backstop run
  backstop run crash 'sound/plain[server.version=15,client.wal=fetch]'
  backstop run --client builtin --client pg_basebackup=/opt/pg/bin/pg_basebackup
  backstop run --client 'exec=my-backup --host {host} --port {port} --to {dir}' --report junit=report.xml
  backstop run --partition 2/5 --report json=-
  backstop run --client pg_basebackup --known scenarios/known/pg_basebackup-15.toml
  backstop run sound --server pg=/usr/lib/postgresql/15/bin
  backstop run sound --server docker
  backstop run commands --server 'url=host=db.example.com user=backup'";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct RunArgs {
    /// Ids of cases, beginnings of ids, or paths of files or directories [default: everything]
    #[arg(value_name = "CASE|PATH")]
    cases: Vec<String>,
    /// The client under test: builtin, pg_basebackup[=PATH], pg_receivewal[=PATH] or exec=TEMPLATE, where {host}, {port},
    /// {user}, {password}, {dir}, {label}, {slot}, {manifest} (of the backup before an incremental one), {lsn} (where that
    /// started) and {jobs} (connections of a backup with SQL, for programs that take such) are replaced and no shell is
    /// involved; with several, a matrix is printed
    #[arg(long = "client", value_name = "CLIENT", default_value = "builtin")]
    clients: Vec<SubjectSpec>,
    /// What the clients connect to: mock; pg=BINDIR, where every case gets a PostgreSQL server of its own; docker[=IMAGE], the same in
    /// containers of postgres:RELEASE or of IMAGE, in which {major} stands for the release; or url=CONNINFO, a server that
    /// is there, in libpq's words: whatever needs no faults and no settings is played there, one case at a time, and what it answers has to
    /// be what PostgreSQL of its release answers. Every backup is a whole one of that server, makes a checkpoint and switches WAL
    #[arg(long, value_name = "SERVER", default_value = "mock")]
    server: ServerSpec,
    /// With url=CONNINFO: play what leaves something on the server, too, slots for instance. Slots that a case makes are dropped after it
    #[arg(long)]
    allow_writes: bool,
    /// How many cases run at a time [default: the number of processors]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Run one of N parts of the cases
    #[arg(long, value_name = "M/N")]
    partition: Option<Partition>,
    /// Run only scenarios with this tag; may be repeated
    #[arg(long = "filter", value_name = "TAG")]
    tags: Vec<String>,
    /// The seed of everything random [default: each scenario's own]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Let a failed `should` fail the run
    #[arg(long)]
    strict: bool,
    /// Write the golden transcripts that are there anew, and those of the cases that are named, instead of comparing them: what is
    /// said between the built-in client and the mock, in a file beside the scenario
    #[arg(long, conflicts_with = "seed")]
    bless: bool,
    /// Where a synthetic cluster's backup must be restorable, ask pg_verifybackup and pg_controldata of its release, if they
    /// are installed; on the backup of a real data directory PostgreSQL is started in any case
    #[arg(long)]
    ask_postgres: bool,
    /// Keep what the cases leave behind in this directory, what was said, and a record that `judge` reads
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Write the transcript of every case to this directory: CASE/transcript.txt
    #[arg(long, value_name = "DIR")]
    transcripts: Option<PathBuf>,
    /// Let the cases happen in this directory [default: in memory where there is room, else the temporary directory]
    #[arg(long, value_name = "DIR", env = "BACKSTOP_SCRATCH")]
    scratch: Option<PathBuf>,
    /// Keep every byte of the connections, too, in captures for `backstop decode` and other tools that read pcap
    #[arg(long, requires = "keep")]
    capture: bool,
    /// Set aside what this file lists as known of a client, and fail what comes out otherwise; may be repeated
    #[arg(long = "known", value_name = "FILE")]
    known: Vec<PathBuf>,
    /// Write a report: junit=PATH, json=PATH, tap=PATH, html=PATH or github=PATH (annotations), with - for standard output;
    /// may be repeated
    #[arg(long = "report", value_name = "FORMAT=PATH")]
    reports: Vec<ReportSpec>,
    #[command(flatten)]
    root: Root,
}

pub(super) fn run(args: RunArgs) -> Result<u8, Failure> {
    let to_standard_output = args.reports.iter().filter(|report| report.path.is_none()).count();
    if to_standard_output > 1 {
        return Err(Failure::Usage("only one report can go to standard output".to_owned()));
    }
    if args.bless && !args.clients.contains(&SubjectSpec::Builtin) {
        return Err(Failure::Usage("--bless is about the transcripts of the client builtin".to_owned()));
    }
    if args.bless && args.server != ServerSpec::Mock {
        return Err(Failure::Usage("--bless is about the transcripts of the server mock".to_owned()));
    }
    let named = !args.cases.is_empty();
    let selection =
        Selection { wanted: args.cases, tags: args.tags, partition: args.partition, root: args.root.scenarios };
    let cases = selection.cases()?;
    if cases.is_empty() {
        return Err(Failure::Nothing(why_nothing(&selection)));
    }
    if selection.root.is_dir() {
        golden::refuse_stale(&selection.root)?;
    }
    let bless = match args.bless {
        true if named => Bless::Cases(cases.iter().map(|case| case.id.clone()).collect()),
        true => Bless::Cases(BTreeSet::new()),
        false => Bless::Nothing,
    };
    let known = KnownFaults::load(&args.known)?;
    let mut readers = Readers::open(&args.reports, args.strict, to_standard_output > 0)?;
    let plan = RunPlan {
        known,
        cases,
        clients: args.clients,
        server: args.server,
        jobs: args.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get),
        seed: args.seed,
        keep: args.keep,
        transcripts: args.transcripts,
        scratch: args.scratch,
        capture: args.capture,
        ask_postgres: args.ask_postgres,
        allow_writes: args.allow_writes,
        strict: args.strict,
        bless,
    };
    let environment = |error: io::Error| Failure::Environment(format!("could not start: {error}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(environment)?;
    runtime.block_on(async {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let run = runner::run(plan, sender, cancel::on_request());
        let read = async {
            let mut status = 0;
            while let Some(event) = receiver.recv().await {
                if let Event::RunFinished { summary, cancelled, .. } = &event {
                    status = if *cancelled { CANCELLED } else { summary.worst().exit_code(args.strict) };
                }
                readers.event(&event);
            }
            status
        };
        let (ran, status) = tokio::join!(run, read);
        ran.map_err(|error| Failure::Environment(error.to_string()))?;
        readers.finish()?;
        Ok(status)
    })
}

fn why_nothing(selection: &Selection) -> String {
    let root = selection.root.display();
    match (selection.wanted.as_slice(), selection.tags.as_slice(), selection.partition) {
        (_, [], Some(partition)) => format!(": partition {partition} holds none"),
        ([], [], None) => format!(": there is no scenario file below {root}"),
        (_, tags, _) => format!(": none has the tag {}", tags.join(" or ")),
    }
}

/// The reports of a run. One that cannot be written does not end the run, but fails it in the end.
pub(super) struct Readers {
    terminal: Option<Box<dyn Report>>,
    bar: Bar,
    reports: Vec<(ReportSpec, Option<Box<dyn Report>>)>,
    failure: Option<ReportError>,
}

impl Readers {
    pub(super) fn open(specs: &[ReportSpec], strict: bool, standard_output_is_taken: bool) -> Result<Self, Failure> {
        let mut reports = Vec::new();
        for spec in specs {
            let report = spec.open().map_err(|error| Failure::Environment(error.to_string()))?;
            reports.push((spec.clone(), Some(report)));
        }
        let bar = Bar::new();
        let terminal: Box<dyn Report> = if standard_output_is_taken {
            Box::new(Terminal::new(Beside::new(anstream::stderr(), &bar), strict))
        } else {
            Box::new(Terminal::new(Beside::new(anstream::stdout(), &bar), strict))
        };
        Ok(Self { terminal: Some(terminal), bar, reports, failure: None })
    }

    pub(super) fn event(&mut self, event: &Event) {
        // The line of the summary is the last.
        self.bar.event(event);
        // Whoever closed the terminal or the pipe does not want to read on; the verdict counts all the same.
        if self.terminal.as_mut().is_some_and(|terminal| terminal.event(event).is_err()) {
            self.terminal = None;
        }
        for (spec, report) in &mut self.reports {
            if let Some(Err(error)) = report.as_mut().map(|report| report.event(event)) {
                self.failure.get_or_insert(spec.error(error));
                *report = None;
            }
        }
    }

    pub(super) fn finish(self) -> Result<(), Failure> {
        match self.failure {
            Some(error) => Err(Failure::Environment(error.to_string())),
            None => Ok(()),
        }
    }
}
