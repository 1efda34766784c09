//! One file a command.

mod client;
mod config;
mod confirm;
mod dead_letters;
mod demo;
mod doctor;
mod enqueue;
#[cfg(feature = "export")]
mod export;
mod keys;
#[cfg(feature = "lambda")]
mod lambda;
mod migrate;
mod moving;
mod publish;
mod query;
mod receipt;
mod reconcile;
mod serve;
mod tail;
mod up;
mod vouch;

use std::process::ExitCode;

use anyhow::Result;
use caudal_probe::ClientError;
use clap::CommandFactory;

use crate::cli::{Cli, Command, ConfigCommand, KeysCommand};

/// Runs the chosen command to its end.
pub(crate) async fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Up(args) => up::run(args).await,
        Command::Serve(args) => serve::run(args).await,
        #[cfg(feature = "lambda")]
        Command::Lambda(args) => lambda::run(args).await,
        Command::Publish(args) => publish::run(args).await,
        Command::Query(args) => query::run(args).await,
        Command::Tail(args) => tail::run(args).await,
        Command::Receipt(args) => receipt::run(args).await,
        Command::DeadLetters(command) => dead_letters::run(command).await,
        Command::Confirm(command) => confirm::run(command).await,
        Command::Reconcile(args) => reconcile::run(args).await,
        #[cfg(feature = "export")]
        Command::Export(args) => export::run(args).await,
        Command::Migrate(args) => migrate::run(args).await,
        Command::Config(ConfigCommand::Check(args)) => config::check(args),
        Command::Doctor(args) => doctor::run(args).await,
        Command::Keys(KeysCommand::New) => keys::new(),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "caudal", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The exit code that tells scripts what kind of failure it was.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<ClientError>() {
        Some(error) => ExitCode::from(error.exit_code()),
        None => ExitCode::FAILURE,
    }
}
