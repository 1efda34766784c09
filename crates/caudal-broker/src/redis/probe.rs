//! What a confirmation of this server is worth, from what it says of its settings.

use std::collections::HashMap;

use caudal_core::error::BrokerError;
use caudal_core::message::Durability;
use caudal_core::ports::Probe;
use redis::Value;

use super::entry::array;
use super::error::code;
use super::gap::fields;
use super::link::Link;

type Texts = HashMap<String, String>;

impl Link {
    pub(super) async fn probe(&self) -> Result<Probe, BrokerError> {
        let info = self.ask(&redis::cmd("INFO")).await.map_err(|error| self.explain(error, "caudal:*"))?;
        let info = lines(&redis::from_redis_value::<String>(info).unwrap_or_default());
        let settings = match self.ask(redis::cmd("CONFIG").arg("GET").arg("*append*")).await {
            Ok(settings) => Ok(texts(settings)),
            Err(error) if matches!(&*code(&error), "NOPERM" | "ERR") => Err(error.to_string()),
            Err(error) => return Err(self.explain(error, "caudal:*")),
        };
        let (durability, mut reasons) = class(&info, settings.as_ref().map_err(String::as_str));
        let text = |name: &str| info.get(name).map(String::as_str).unwrap_or_default();
        if !matches!(text("connected_slaves"), "" | "0") {
            reasons.push(format!(
                "its {} replicas get a message after it is confirmed (Caudal does not WAIT for them), so a failover can \
                 lose the newest",
                text("connected_slaves")
            ));
        }
        let product = match text("valkey_version") {
            "" => format!("Redis {}", text("redis_version")),
            version => format!("Valkey {version}"),
        };
        Ok(Probe { product, durability, reasons })
    }
}

/// The class of a server, and why.
fn class(info: &Texts, settings: Result<&Texts, &str>) -> (Durability, Vec<String>) {
    let text = |of: &Texts, name: &str| of.get(name).cloned().unwrap_or_default();
    let policy = text(info, "maxmemory_policy");
    if text(info, "maxmemory") != "0" && policy.starts_with("allkeys-") {
        let why =
            "when its memory is full it removes whole streams with all they hold; set maxmemory-policy noeviction";
        return (Durability::Unknown, vec![format!("{why} (now {policy})")]);
    }
    let settings = match settings {
        Ok(settings) => settings,
        Err(why) => {
            let why = format!("it does not let Caudal read its settings ({why}); allow the user +config|get");
            return (Durability::Unknown, vec![why]);
        }
    };
    let (always, aof) = ("appendonly yes and appendfsync always", text(settings, "appendonly"));
    if aof != "yes" {
        let why =
            format!("it keeps no append-only file, so a crash loses what came since its last snapshot; set {always}");
        return (Durability::Unknown, vec![why]);
    }
    let (durability, why) = match text(settings, "appendfsync").as_str() {
        "always" if text(settings, "no-appendfsync-on-rewrite") == "yes" => (
            Durability::Process,
            "it syncs its file before it confirms, but not while it rewrites it; set no-appendfsync-on-rewrite no"
                .to_owned(),
        ),
        "always" => {
            (Durability::Power, "it syncs its append-only file before it confirms (appendfsync always)".to_owned())
        }
        "everysec" => (
            Durability::Process,
            format!(
                "it syncs its append-only file once a second: a loss of power loses up to a second of confirmed messages, \
                 and with a disk that hangs so does a crash; set {always}"
            ),
        ),
        other => (
            Durability::Process,
            format!("it leaves to the system when its append-only file is synced (appendfsync {other}); set {always}"),
        ),
    };
    (durability, vec![why])
}

fn lines(info: &str) -> Texts {
    info.lines().filter_map(|line| line.split_once(':')).map(|(n, v)| (n.to_owned(), v.trim().to_owned())).collect()
}

fn texts(settings: Value) -> Texts {
    let text = |(name, value)| Some((name, redis::from_redis_value(value).ok()?));
    fields(array(settings)).into_iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(info: &str, settings: Result<&str, &str>) -> (Durability, String) {
        let settings = settings.map(lines);
        let (durability, reasons) = class(&lines(info), settings.as_ref().map_err(|why| *why));
        (durability, reasons.join(" "))
    }

    #[test]
    fn classes() {
        let roomy = "maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n";
        let always = "appendonly:yes\nappendfsync:always\nno-appendfsync-on-rewrite:";
        for (info, settings, class, says) in [
            (roomy, Ok(format!("{always}no")), Durability::Power, "before it confirms"),
            (roomy, Ok(format!("{always}yes")), Durability::Process, "no-appendfsync-on-rewrite no"),
            (roomy, Ok("appendonly:yes\nappendfsync:everysec".into()), Durability::Process, "up to a second"),
            (roomy, Ok("appendonly:no\nappendfsync:always".into()), Durability::Unknown, "since its last snapshot"),
            (roomy, Err("no"), Durability::Unknown, "+config|get"),
            ("maxmemory:9\nmaxmemory_policy:allkeys-lru", Ok(format!("{always}no")), Durability::Unknown, "noeviction"),
            ("maxmemory:9\nmaxmemory_policy:noeviction", Ok(format!("{always}no")), Durability::Power, "always"),
        ] {
            let (durability, reason) = of(info, settings.as_deref().map_err(|why| *why));
            assert!(durability == class && reason.contains(says), "{info} {settings:?}: {durability}: {reason}");
        }
    }
}
