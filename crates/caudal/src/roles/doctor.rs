//! `caudal doctor`: is everything there that the configuration names, and does it work?

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use caudal_core::message::Durability;

use crate::cli::ConfigArgs;
use crate::compose;
use crate::config::{self, Loaded};

/// A store that does not answer for this long is reported.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Findings, printed as they come.
#[derive(Default)]
struct Findings {
    bad: u32,
}

impl Findings {
    fn good(&mut self, what: &str, finding: impl Display) {
        println!("ok    {what:14} {finding}");
    }

    fn bad(&mut self, what: &str, finding: impl Display) {
        println!("FAIL  {what:14} {finding}");
        self.bad += 1;
    }
}

pub(crate) async fn run(args: ConfigArgs) -> Result<ExitCode> {
    let mut findings = Findings::default();
    let loaded = match config::load(args.config.as_deref()) {
        Ok(loaded) => loaded,
        Err(error) => {
            findings.bad("configuration", format!("{error:#}"));
            return Ok(ExitCode::FAILURE);
        }
    };
    let file = loaded.file.as_ref().map_or("defaults and environment".to_owned(), |f| f.display().to_string());
    findings.good("configuration", file);
    match loaded.topics() {
        Ok(topics) => findings.good("topics", topics.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(", ")),
        Err(error) => findings.bad("topics", format!("{error:#}")),
    }
    match loaded.settings.http.listen.parse() {
        Ok(listen) => match loaded.access(listen) {
            Ok(_) => findings.good("http", listen),
            Err(error) => findings.bad("http", error),
        },
        Err(_) => findings.bad("http", format!("http.listen {:?} is not an address", loaded.settings.http.listen)),
    }
    data_dir(&loaded, &mut findings);
    store(&loaded, &mut findings).await;
    broker(&loaded, &mut findings).await;
    Ok(if findings.bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn data_dir(loaded: &Loaded, findings: &mut Findings) {
    let dir = &loaded.settings.data_dir;
    let probe = dir.join(format!(".doctor-{}", std::process::id()));
    let wrote = std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(&probe, b"caudal"))
        .and_then(|()| std::fs::File::open(&probe)?.sync_all())
        .and_then(|()| std::fs::remove_file(&probe));
    match wrote {
        Ok(()) => findings.good("data_dir", format!("{} is writable and can be synced", dir.display())),
        Err(error) => findings.bad("data_dir", format!("{}: {error}", dir.display())),
    }
}

async fn store(loaded: &Loaded, findings: &mut Findings) {
    let url = &loaded.settings.store.url;
    let store = match compose::store(loaded) {
        Ok(store) => store,
        Err(error) => return findings.bad("store", format!("{url}: {error:#}")),
    };
    match tokio::time::timeout(ANSWER_WITHIN, store.describe()).await {
        Ok(Ok(product)) => findings.good("store", format!("{url} is {product}")),
        Ok(Err(error)) => findings.bad("store", format!("{url}: {error}")),
        Err(_) => findings.bad("store", format!("{url} does not answer within {} s", ANSWER_WITHIN.as_secs())),
    }
}

async fn broker(loaded: &Loaded, findings: &mut Findings) {
    let url = &loaded.settings.broker.url;
    // A process that runs holds the embedded log; its directory was looked at above.
    if url.expose().starts_with("embedded") {
        return findings.good("broker", format!("{url} is power: every message is fsynced before it is acknowledged"));
    }
    let opened = match compose::broker(loaded).await {
        Ok(opened) => opened,
        Err(error) => return findings.bad("broker", format!("{url}: {error:#}")),
    };
    let (Some(port), Ok(topics)) = (opened.port(), loaded.topics()) else {
        return findings.good("broker", format!("{url}: messages are stored before they are answered"));
    };
    let names: Vec<_> = topics.into_iter().map(|topic| topic.name).collect();
    match tokio::time::timeout(ANSWER_WITHIN, port.probe(&names)).await {
        Ok(Ok(probe)) => {
            let asked = Durability::from(loaded.settings.broker.durability);
            let finding = format!("{url} is {}; its word is {}", probe.product, probe.durability);
            match probe.durability < asked {
                true => findings.bad("broker", format!("{finding}, and broker.durability asks for {asked}")),
                false => findings.good("broker", finding),
            }
            probe.reasons.iter().for_each(|reason| println!("      {:14} {reason}", ""));
        }
        Ok(Err(error)) => findings.bad("broker", format!("{url}: {error}")),
        Err(_) => findings.bad("broker", format!("{url} does not answer within {} s", ANSWER_WITHIN.as_secs())),
    }
    let _ = port.close().await;
}
