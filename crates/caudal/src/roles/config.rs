//! `caudal config check`: what will run.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::cli::ConfigArgs;
use crate::config;
use crate::doors;

pub(crate) fn check(args: ConfigArgs) -> Result<ExitCode> {
    let loaded = config::load(args.config.as_deref())?;
    for topic in loaded.topics()? {
        let name = topic.name.clone();
        let metrics = caudal_engine::metrics::Metrics::register(&mut Default::default()).topic(name.as_str());
        caudal_engine::topic::Topic::new(topic, metrics).with_context(|| format!("topic {name}: its schema"))?;
    }
    doors::open(&loaded.settings, caudal_http::HttpConfig::default())?;
    let listen = loaded.settings.http.listen.parse();
    if let Ok(listen) = listen {
        loaded.access(listen)?;
    }
    match &loaded.file {
        Some(file) => println!("# {} and the environment over it", file.display()),
        None => println!("# no caudal.toml here: defaults and the environment"),
    }
    print!("{}", toml::to_string(&loaded.settings)?);
    Ok(ExitCode::SUCCESS)
}
