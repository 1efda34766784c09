//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Takes data in over HTTP, stores it once in SQL, serves it back over HTTP, with every message accounted for.
#[derive(Debug, Parser)]
#[command(name = "caudal", version, about, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Start with:
  caudal up --demo                       everything in one process, with sample data
  caudal publish flights flights.ndjson  send a file
  caudal query flights carrier=eq.UA limit=5
  caudal receipt <transaction_id>        where is my message?

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused, 5 server not available.";

impl Cli {
    /// The command line of this process. AWS Lambda starts a program called `bootstrap` without arguments.
    pub(crate) fn of_process() -> Self {
        let mut words: Vec<_> = std::env::args_os().collect();
        if words.len() == 1 && PathBuf::from(&words[0]).file_name().is_some_and(|name| name == "bootstrap") {
            words.push("lambda".into());
        }
        Self::parse_from(words)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything in one process: HTTP, durable queue, store, worker
    Up(UpArgs),
    /// Run chosen roles of a deployment in the foreground
    Serve(ServeArgs),
    /// Run as a function of AWS Lambda: behind API Gateway, a function URL, a load balancer, and on queues of SQS
    #[cfg(feature = "lambda")]
    Lambda(ConfigArgs),
    /// Send a file or standard input to a topic
    Publish(PublishArgs),
    /// Read rows of a table, or the answer to a statement in SQL
    Query(QueryArgs),
    /// Follow new records of a topic
    Tail(TailArgs),
    /// Ask where a message is
    Receipt(ReceiptArgs),
    /// List, show, repair and redrive what was set aside
    #[command(name = "dead-letters", subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Watch, steer and audit the confirmation of transactions
    #[command(subcommand)]
    Confirm(ConfirmCommand),
    /// Balance the books: accepted = stored + duplicate + rejected + dead + in flight
    Reconcile(ReconcileArgs),
    /// Write what a topic has gained since the last export as Parquet or CSV, to a directory or S3
    #[cfg(feature = "export")]
    Export(ExportArgs),
    /// Bring the store's tables to this release and the topics' schemas
    Migrate(ConfigArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check that everything the configuration names is there and works
    Doctor(ConfigArgs),
    /// Make API keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Print a completion script for a shell
    Completions { shell: Shell },
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file; without it ./caudal.toml when there is one, else the defaults
    #[arg(long, short, env = "CAUDAL_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Load sample flights and payments, and say what to open
    #[arg(long)]
    pub(crate) demo: bool,
    /// Listen here instead of where the configuration says
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// The API key that loads the demo, when the configuration wants one
    #[arg(long, env = "CAUDAL_KEY", hide_env_values = true, value_name = "KEY")]
    pub(crate) key: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Takes in and serves over HTTP
    Api,
    /// Moves messages from the broker to the store
    Worker,
    /// Confirms pending transactions
    Confirm,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Roles of this process
    #[arg(long, value_delimiter = ',', default_value = "api,worker,confirm")]
    pub(crate) role: Vec<Role>,
}

/// Which server a command talks to.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// The server's address
    #[arg(long, env = "CAUDAL_URL", default_value = "http://127.0.0.1:8080", value_name = "URL", global = true)]
    pub(crate) url: String,
    /// The API key, when the server wants one
    #[arg(long, env = "CAUDAL_KEY", hide_env_values = true, value_name = "KEY", global = true)]
    pub(crate) key: Option<String>,
    /// Print the server's JSON as it is
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    Ndjson,
    Json,
    Csv,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  caudal publish flights flights.ndjson\n  echo '{\"message\":\"hola\"}' | caudal publish data-ingestion-topic -"
)]
pub(crate) struct PublishArgs {
    pub(crate) topic: String,
    /// The file to send; - is standard input
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
    /// Format of the input; by default from the file's name, else NDJSON
    #[arg(long, value_enum)]
    pub(crate) format: Option<InputFormat>,
    /// Name of this request: sending it again under the same name changes nothing
    #[arg(long, value_name = "NAME")]
    pub(crate) idempotency_key: Option<String>,
    /// Answer as soon as the messages are durable, without waiting for the rows
    #[arg(long = "async")]
    pub(crate) respond_async: bool,
    /// All records or none (at most 10,000)
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    Table,
    Json,
    Ndjson,
    Csv,
    /// A Parquet file
    Parquet,
    /// A stream of Arrow IPC
    Arrow,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  caudal query flights limit=5\n  caudal query flights select=carrier,flight,distance distance=gte.2000 order=distance.desc limit=10\n  caudal query _dead_letters reason=eq.schema --format ndjson\n  caudal query flights --format parquet > flights.parquet\n  caudal query --sql 'select carrier, count(*) from flights group by 1 order by 2 desc'"
)]
pub(crate) struct QueryArgs {
    #[arg(required_unless_present = "sql", conflicts_with = "sql")]
    pub(crate) table: Option<String>,
    /// select=…, order=…, limit=…, offset=…, or <column>=<operator>.<value>
    pub(crate) terms: Vec<String>,
    /// One statement that reads, instead of a table; - reads it from standard input
    #[arg(long, value_name = "STATEMENT")]
    pub(crate) sql: Option<String>,
    /// How to print; a table on a terminal, else NDJSON
    #[arg(long, value_enum)]
    pub(crate) format: Option<OutputFormat>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[cfg(feature = "export")]
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  caudal export flights --to exports\n  caudal export flights --to s3://bucket/prefix --format csv\n\nRun it again to add what is new. docs/export.md says what it writes and how to load it."
)]
pub(crate) struct ExportArgs {
    pub(crate) topic: String,
    /// A directory, or s3://bucket/prefix; by default what topics.<topic>.export.url says
    #[arg(long, value_name = "URL")]
    pub(crate) to: Option<String>,
    /// Format of the files; by default what the topic's configuration says, else Parquet
    #[arg(long, value_enum)]
    pub(crate) format: Option<FileFormat>,
    /// The column whose days are the partitions
    #[arg(long, value_name = "COLUMN")]
    pub(crate) day_of: Option<String>,
    /// Print the manifest
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

#[cfg(feature = "export")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FileFormat {
    #[cfg(feature = "parquet")]
    #[default]
    Parquet,
    #[cfg_attr(not(feature = "parquet"), default)]
    Csv,
}

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    pub(crate) topic: String,
    /// Stop after so many records
    #[arg(long, short = 'n')]
    pub(crate) count: Option<u64>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReceiptArgs {
    pub(crate) transaction_id: String,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// What waits, oldest first
    List {
        /// Filters: topic=eq.flights, reason=eq.schema, limit=20
        terms: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// One dead letter with its payload
    Show {
        id: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Replace the payload of a dead letter (a file, or - for standard input)
    Repair {
        id: String,
        file: PathBuf,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Send dead letters back into their topic: one by id, or all that match filters
    Redrive {
        /// A dead letter's id, or filters such as topic=eq.flights
        #[arg(required = true)]
        what: Vec<String>,
        /// Only say how many match
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfirmCommand {
    /// Every lane: how many are pending, called for, in doubt, confirmed
    Status {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Transactions that match, oldest first
    List {
        /// Filters: topic=eq.payments, state=in.(held,dead), limit=20
        terms: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// One transaction, and what was tried
    Show {
        id: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Stop claiming a topic's transactions; calls under way end as they do
    Pause {
        topic: String,
        /// One lane of it
        #[arg(long)]
        lane: Option<String>,
        /// Why, for whoever looks later
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Go on after a pause
    Resume {
        topic: String,
        #[arg(long)]
        lane: Option<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Make dead or held transactions pending again, under the same key: one by id, or all that match filters
    Redrive {
        /// A transaction_id, or filters such as topic=eq.payments
        #[arg(required = true)]
        what: Vec<String>,
        /// Only say how many match
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Call off a transaction that was surely never sent
    Void {
        id: String,
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Record what you found out about a transaction that is held or in doubt
    Resolve {
        id: String,
        /// What the endpoint did
        #[arg(long, value_enum)]
        r#as: FactArg,
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Make records pending where confirmations have a store of their own (confirm.store); repeating it changes nothing
    Enqueue(EnqueueArgs),
    /// Move transactions to another store, with their records, and compare every one; repeating it goes on
    Move(MoveArgs),
    /// Audit the store itself: every transaction has one outcome or is open in one place
    Verify {
        #[command(flatten)]
        config: ConfigArgs,
        #[arg(long)]
        json: bool,
    },
    /// Drill your own staging endpoint: does it really do each key once, and say so afterwards?
    Chaos {
        topic: String,
        /// A record that the endpoint accepts, as JSON; - is standard input
        record: PathBuf,
        /// Its effects do not matter: it is a staging endpoint
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        config: ConfigArgs,
        #[arg(long)]
        json: bool,
    },
    /// What the load that was measured would cost a month, by deployment
    Cost(CostArgs),
    /// Confirm what is pending now, then end: for those who keep a schedule
    Once {
        #[command(flatten)]
        config: ConfigArgs,
        /// Stop after this long
        #[arg(long, value_name = "TIME", default_value = "1h")]
        limit: String,
        /// Also wait for what is due again within this time
        #[arg(long, value_name = "TIME")]
        linger: Option<String>,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
The configured store (confirm.store, else store.url) is where the transactions come from. Both ends are paused first: claims stop,
calls under way end. They stay paused in the store that they came from, whatever happens; there it is as it was, so that it can be
repeated, or gone back to. Stop whatever makes transactions pending until the configuration names the other store.

Exit status: 0 everything is there, and the same; 1 something differs, or an error.")]
pub(crate) struct MoveArgs {
    /// Where to: dynamodb:…, postgres://… or sqlite:…
    #[arg(long, value_name = "URL")]
    pub(crate) to: String,
    /// Only this topic's; without it, those of every topic with a confirm section
    #[arg(long)]
    pub(crate) topic: Option<String>,
    /// Go on there at once when everything has arrived
    #[arg(long)]
    pub(crate) resume: bool,
    /// How long calls under way may take to end; a dead worker's end with its lease
    #[arg(long, value_name = "TIME", default_value = "2m")]
    pub(crate) wait: String,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EnqueueArgs {
    pub(crate) topic: String,
    /// Records as NDJSON, one object a line; - is standard input
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CostArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Count what arrived in this many days
    #[arg(long, default_value_t = 30)]
    pub(crate) days: u32,
    /// A file of hour,count lines instead of the store: 2026-11-23T08:00:00Z,1200
    #[arg(long, value_name = "FILE")]
    pub(crate) curve: Option<PathBuf>,
    /// Calls until a transaction is settled; without it as many as were counted, or 1
    #[arg(long, value_name = "NUMBER")]
    pub(crate) calls: Option<f64>,
    /// How long the endpoint takes
    #[arg(long, value_name = "TIME", default_value = "100ms")]
    pub(crate) call_time: String,
    /// Prices and assumptions that replace those built in
    #[arg(long, value_name = "FILE")]
    pub(crate) prices: Option<PathBuf>,
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FactArg {
    Confirmed,
    Rejected,
}

impl FactArg {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Rejected => "rejected",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ReconcileArgs {
    /// Also count the tables' rows
    #[arg(long)]
    pub(crate) count: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print what will run, secrets masked, or say what is wrong
    Check(ConfigArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key: show it once, and the line for caudal.toml
    New,
}
