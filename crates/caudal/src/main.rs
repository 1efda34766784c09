//! Caudal: data in over HTTP or a broker, stored once in SQL, served back over HTTP.

mod cli;
mod compose;
mod config;
mod confirming;
mod doors;
mod roles;
mod secret;
mod settings;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::of_process();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("caudal: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(roles::run(cli)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("caudal: {error:#}");
            roles::exit_code(&error)
        }
    }
}
