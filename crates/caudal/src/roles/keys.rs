//! `caudal keys new`: 256 random bits, shown once.

use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context, Result};
use caudal_http::keys::KeyHash;

pub(crate) fn new() -> Result<ExitCode> {
    let mut random = [0u8; 32];
    let mut source = std::fs::File::open("/dev/urandom").context("no source of random numbers")?;
    source.read_exact(&mut random)?;
    let secret: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let key = format!("cdl_{secret}");
    println!("key   {key}");
    println!("\nIt is not kept anywhere; give it to its holder now. In caudal.toml:\n");
    println!("[http]\nkeys = [\"{}\"]", KeyHash::of(&key));
    Ok(ExitCode::SUCCESS)
}
