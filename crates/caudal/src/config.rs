//! Reading the configuration: the file, then the environment over it. The only place that reads the environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use caudal_core::topic::TopicName;
use caudal_engine::topic::{Retention, TopicConfig};
use caudal_http::Access;
use caudal_http::keys::KeyHash;
use toml::{Table, Value};

use crate::secret::SecretUrl;
use crate::settings::{COMPAT_TOPIC, Local, Settings, SqlEnabled, Topic};

const FILE: &str = "caudal.toml";
const PREFIX: &str = "CAUDAL_";

/// The configuration, and where it came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) settings: Settings,
    pub(crate) file: Option<PathBuf>,
    /// Directory that paths in the file are relative to.
    base: PathBuf,
}

/// Loads `file`, or `./caudal.toml` when there is one, and lays the environment over it.
pub(crate) fn load(file: Option<&Path>) -> Result<Loaded> {
    load_from(file, std::env::vars())
}

fn load_from(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Loaded> {
    let file = match file {
        Some(file) => Some(file.to_owned()),
        None => Some(PathBuf::from(FILE)).filter(|file| file.exists()),
    };
    let mut merged = Table::new();
    if let Some(file) = &file {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        merged = text.parse().with_context(|| format!("{} is not TOML", file.display()))?;
    }
    let mut database_url = None;
    for (name, value) in environment {
        if name == "DATABASE_URL" {
            database_url = Some(value);
        } else if let Some(path) = setting_path(&name) {
            set(&mut merged, &path, value).with_context(|| format!("environment variable {name}"))?;
        }
    }
    check_names(&merged)?;
    let named_store = merged.get("store").and_then(|s| s.get("url")).is_some();
    let mut settings: Settings = merged.try_into().map_err(|e: toml::de::Error| anyhow::anyhow!("{}", e.message()))?;
    if let Some(url) = database_url.filter(|_| !named_store) {
        settings.store.url = SecretUrl::new(url);
    }
    let base = file.as_deref().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
    let mut loaded = Loaded { settings, file, base };
    loaded
        .settings
        .topics
        .entry(COMPAT_TOPIC.to_owned())
        .or_insert_with(|| Topic { row_number: true, ..Topic::default() });
    Ok(loaded)
}

/// Whether AWS Lambda, or something in its place, runs this process.
#[cfg(feature = "lambda")]
pub(crate) fn in_lambda() -> bool {
    let needed = ["AWS_LAMBDA_RUNTIME_API", "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_VERSION"];
    needed.iter().all(|name| std::env::var_os(name).is_some())
        && std::env::var("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").is_ok_and(|size| size.parse::<i32>().is_ok())
}

/// Whether Lambda starts copies of this process from a snapshot of its memory.
#[cfg(feature = "lambda")]
pub(crate) fn is_copied() -> bool {
    std::env::var("AWS_LAMBDA_INITIALIZATION_TYPE").is_ok_and(|how| how == "snap-start")
}

/// `CAUDAL_HTTP__LISTEN` → `["http", "listen"]`. Other variables with our prefix belong to commands or tests.
fn setting_path(name: &str) -> Option<Vec<String>> {
    let rest = name.strip_prefix(PREFIX)?;
    if rest == "DATA_DIR" || rest.contains("__") {
        return Some(rest.split("__").map(str::to_ascii_lowercase).collect());
    }
    None
}

fn set(table: &mut Table, path: &[String], text: String) -> Result<()> {
    let [first, rest @ ..] = path else { bail!("has an empty name") };
    if rest.is_empty() {
        table.insert(first.clone(), value(text));
        return Ok(());
    }
    match table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new())) {
        Value::Table(inner) => set(inner, rest, text),
        _ => bail!("{first} is a value, not a section"),
    }
}

/// Numbers, booleans and lists as TOML writes them; anything else is a string.
fn value(text: String) -> Value {
    match format!("v = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("v")) {
        Some(value @ (Value::Integer(_) | Value::Boolean(_) | Value::Array(_))) => value,
        _ => Value::String(text),
    }
}

/// Refuses names that no setting has, with the closest one that there is.
fn check_names(merged: &Table) -> Result<()> {
    let known = Table::try_from(Settings::default()).context("defaults")?;
    check_level(merged, &known, "")?;
    for (topic, section) in merged.get("topics").and_then(Value::as_table).into_iter().flatten() {
        TopicName::parse(topic).with_context(|| format!("topic {topic:?}"))?;
        let Some(section) = section.as_table() else { bail!("topics.{topic} must be a section") };
        let names = [
            "schema",
            "unknown_fields",
            "key",
            "row_number",
            "retention",
            "key_retention",
            "publish_to",
            "consume_from",
            "sns_topic_arns",
            "webhook",
            "confirm",
            #[cfg(feature = "export")]
            "export",
        ]
        .map(|name| (name.to_owned(), Value::Boolean(true)));
        check_level(section, &Table::from_iter(names), &format!("topics.{topic}."))?;
    }
    Ok(())
}

fn check_level(given: &Table, known: &Table, path: &str) -> Result<()> {
    for (name, value) in given {
        match (known.get(name), value) {
            (None, _) => {
                let closest = known.keys().map(|k| (strsim::damerau_levenshtein(name, k), k)).min();
                let hint = match closest {
                    Some((distance, close)) if distance <= 3 => format!("did you mean {path}{close}?"),
                    _ => format!("there are {}", known.keys().cloned().collect::<Vec<_>>().join(", ")),
                };
                bail!("unknown setting {path}{name}; {hint}");
            }
            // A section whose names are the deployment's own: topics, access keys.
            (Some(Value::Table(known)), Value::Table(_)) if known.is_empty() => {}
            (Some(Value::Table(known)), Value::Table(given)) => check_level(given, known, &format!("{path}{name}."))?,
            _ => {}
        }
    }
    Ok(())
}

impl Loaded {
    /// The topics with their schemas read.
    pub(crate) fn topics(&self) -> Result<Vec<TopicConfig>> {
        self.settings.topics.iter().map(|(name, topic)| self.topic(name, topic)).collect()
    }

    fn topic(&self, name: &str, topic: &Topic) -> Result<TopicConfig> {
        let schema = match (&topic.schema, topic.built_in) {
            (Some(file), _) => {
                let file = self.base.join(file);
                let text = std::fs::read_to_string(&file)
                    .with_context(|| format!("topic {name}: cannot read schema {}", file.display()))?;
                Some(text)
            }
            (None, built_in) => built_in.map(str::to_owned),
        };
        let schema = schema
            .map(|text| serde_json::from_str(&text).with_context(|| format!("topic {name}: the schema is not JSON")))
            .transpose()?;
        Ok(TopicConfig {
            name: TopicName::parse(name).with_context(|| format!("topic {name:?}"))?,
            schema,
            unknown_fields: topic.unknown_fields.into(),
            key: topic.key.clone(),
            row_number: topic.row_number,
            retention: retention(topic).with_context(|| format!("topic {name}"))?,
            lanes: topic
                .confirm
                .as_ref()
                .map(|confirm| confirm.lanes_config())
                .transpose()
                .with_context(|| format!("topics.{name}.confirm"))?,
        })
    }

    /// The directory that paths in the file are relative to.
    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// A path of the embedded parts: under `data_dir` unless absolute.
    #[cfg(any(feature = "embedded", feature = "sqlite"))]
    pub(crate) fn data_path(&self, path: &str) -> PathBuf {
        self.settings.data_dir.join(path)
    }

    /// Where a topic's configuration sends its exports. A directory is relative to the configuration file, like a schema.
    #[cfg(feature = "export")]
    pub(crate) fn export_url(&self, export: &crate::settings::Export) -> String {
        match export.url.contains("://") {
            true => export.url.clone(),
            false => self.base.join(&export.url).to_string_lossy().into_owned(),
        }
    }

    /// Whether only this machine can reach the server that these settings describe.
    pub(crate) fn is_local(&self) -> bool {
        #[cfg(feature = "lambda")]
        if in_lambda() {
            return false;
        }
        let listen = self.settings.http.listen.as_str();
        let name = listen.rsplit_once(':').map_or(listen, |(name, _)| name);
        listen.parse::<SocketAddr>().map_or(name.eq_ignore_ascii_case("localhost"), |listen| listen.ip().is_loopback())
    }

    /// Whether analysts may send SQL. Where others can reach the server somebody has to have said so.
    pub(crate) fn sql_enabled(&self) -> bool {
        match self.settings.sql.enabled {
            SqlEnabled::Always(enabled) => enabled,
            SqlEnabled::When(Local::Local) => self.is_local(),
        }
    }

    fn key_hashes(&self) -> Result<Vec<KeyHash>> {
        let hashes = self.settings.http.keys.iter().map(|text| {
            KeyHash::parse(text).with_context(|| {
                "http.keys holds hashes of the form sha256:<64 hex digits>; `caudal keys new` makes one".to_owned()
            })
        });
        hashes.collect()
    }

    /// Who may come in where there is no address to listen on, and the whole world may be outside. Without keys nobody does.
    #[cfg(feature = "lambda")]
    pub(crate) fn access_from_anywhere(&self) -> Result<Access> {
        let hashes = self.key_hashes()?;
        Ok(match hashes.is_empty() && self.settings.http.allow_anyone_without_a_key {
            true => Access::Open,
            false => Access::Keys(hashes),
        })
    }

    /// Who may come in at `listen`.
    ///
    /// # Errors
    /// An address other than loopback without keys: nobody gets in by mistake (promise 9).
    pub(crate) fn access(&self, listen: SocketAddr) -> Result<Access> {
        let http = &self.settings.http;
        let hashes = self.key_hashes()?;
        if !hashes.is_empty() {
            return Ok(Access::Keys(hashes));
        }
        if listen.ip().is_loopback() {
            return Ok(Access::Local { listen });
        }
        if http.allow_anyone_without_a_key {
            tracing::warn!(%listen, "anybody who reaches this address may read and write: no key is configured");
            return Ok(Access::Open);
        }
        bail!(
            "http.listen is {listen}, which other machines can reach, and http.keys is empty. Make a key with \
             `caudal keys new` and put its hash into http.keys, or listen on 127.0.0.1"
        )
    }
}

const KEY_RETENTION: Duration = Duration::from_secs(30 * 86_400);

fn retention(topic: &Topic) -> Result<Option<Retention>> {
    let keys = topic.key_retention.as_deref().map(|text| span(text).context("key_retention")).transpose()?;
    match (&topic.retention, keys) {
        (Some(records), keys) => {
            let records = span(records).context("retention")?;
            Ok(Some(Retention { records, keys: keys.unwrap_or(KEY_RETENTION) }))
        }
        (None, None) => Ok(None),
        (None, Some(_)) => bail!("key_retention is about records that retention removes; set retention, too"),
    }
}

/// `90d`: a whole number above zero and its unit.
pub(crate) fn span(text: &str) -> Result<Duration> {
    if let Some(millis) = text.strip_suffix("ms").and_then(|number| number.parse().ok()).filter(|millis| *millis > 0) {
        return Ok(Duration::from_millis(millis));
    }
    let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800)];
    let parsed = units.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*seconds)
    });
    match parsed {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => bail!("{text:?} is not a time span such as 90d; units are ms, s, m, h, d and w"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(environment: &[(&str, &str)]) -> Result<Loaded> {
        let pairs: Vec<_> = environment.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        load_from(Some(Path::new("/dev/null")), pairs.into_iter())
    }

    #[test]
    fn the_environment_sets_any_key() {
        let loaded = with(&[
            ("CAUDAL_HTTP__LISTEN", "127.0.0.1:9"),
            ("CAUDAL_HTTP__WAIT_MS", "7"),
            ("CAUDAL_HTTP__KEYS", "[\"a\", \"b\"]"),
            ("CAUDAL_DATA_DIR", "/tmp/x"),
            ("CAUDAL_TOPICS__ORDERS__KEY", "[\"id\"]"),
            ("CAUDAL_TEST_POSTGRES", "ignored"),
        ])
        .unwrap();
        assert_eq!(loaded.settings.http.listen, "127.0.0.1:9");
        assert_eq!(loaded.settings.http.wait_ms, 7);
        assert_eq!(loaded.settings.http.keys, ["a", "b"]);
        assert_eq!(loaded.settings.data_dir, Path::new("/tmp/x"));
        assert_eq!(loaded.settings.topics["orders"].key, ["id"]);
    }

    #[test]
    fn unknown_keys_are_errors_with_a_suggestion() {
        let error = with(&[("CAUDAL_HTTP__LISTNE", "x")]).unwrap_err().to_string();
        assert!(error.contains("unknown setting http.listne; did you mean http.listen?"), "{error}");
        let error = with(&[("CAUDAL_TOPICS__ORDERS__KEYS", "x")]).unwrap_err().to_string();
        assert!(error.contains("did you mean topics.orders.key?"), "{error}");
    }

    #[test]
    fn retention_is_a_span_with_a_unit() {
        let of = |retention: &str, keys: Option<&str>| {
            let mut set = vec![("CAUDAL_TOPICS__ORDERS__RETENTION", retention)];
            set.extend(keys.map(|keys| ("CAUDAL_TOPICS__ORDERS__KEY_RETENTION", keys)));
            let topics = with(&set)?.topics()?;
            Ok::<_, anyhow::Error>(topics.into_iter().find(|topic| topic.name.as_str() == "orders").unwrap().retention)
        };
        let days = |days: u64| Duration::from_secs(days * 86_400);
        assert_eq!(of("90d", None).unwrap(), Some(Retention { records: days(90), keys: days(30) }));
        assert_eq!(of("36h", Some("1w")).unwrap(), Some(Retention { records: days(1) * 3 / 2, keys: days(7) }));
        for bad in ["90 days", "d", "-1d", "0s", "1.5d", "90 d", "99999999999999999999w", "1y", ""] {
            let error = format!("{:#}", of(bad, None).unwrap_err());
            assert!(error.contains("topic orders: retention") && error.contains("such as 90d"), "{bad}: {error}");
        }
        let alone = with(&[("CAUDAL_TOPICS__ORDERS__KEY_RETENTION", "1d")]).unwrap().topics().unwrap_err();
        assert!(format!("{alone:#}").contains("set retention"), "{alone:#}");
    }

    #[test]
    fn database_url_is_the_store_unless_the_configuration_names_one() {
        let url = "postgres://u@h/d";
        assert_eq!(with(&[("DATABASE_URL", url)]).unwrap().settings.store.url.expose(), url);
        let named = with(&[("DATABASE_URL", url), ("CAUDAL_STORE__URL", "sqlite:a.db")]).unwrap();
        assert_eq!(named.settings.store.url.expose(), "sqlite:a.db");
    }

    #[test]
    #[cfg(feature = "lambda")]
    fn from_anywhere_nobody_comes_in_without_a_key_unless_a_long_flag_says_so() {
        assert!(matches!(with(&[]).unwrap().access_from_anywhere(), Ok(Access::Keys(keys)) if keys.is_empty()));
        let hash = format!("[\"{}\"]", KeyHash::of("k"));
        let keyed = with(&[("CAUDAL_HTTP__KEYS", &hash), ("CAUDAL_HTTP__ALLOW_ANYONE_WITHOUT_A_KEY", "true")]).unwrap();
        assert!(matches!(keyed.access_from_anywhere(), Ok(Access::Keys(keys)) if keys.len() == 1));
        let open = with(&[("CAUDAL_HTTP__ALLOW_ANYONE_WITHOUT_A_KEY", "true")]).unwrap();
        assert!(matches!(open.access_from_anywhere(), Ok(Access::Open)));
        assert!(with(&[("CAUDAL_HTTP__KEYS", "[\"k\"]")]).unwrap().access_from_anywhere().is_err());
    }

    #[test]
    fn sql_is_off_where_others_can_reach_unless_it_is_switched_on() {
        let enabled = |environment: &[(&str, &str)]| with(environment).unwrap().sql_enabled();
        assert!(enabled(&[]));
        for listen in ["[::1]:1", "localhost:1"] {
            assert!(enabled(&[("CAUDAL_HTTP__LISTEN", listen)]), "{listen}");
        }
        for listen in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "host.example:1"] {
            assert!(!enabled(&[("CAUDAL_HTTP__LISTEN", listen)]), "{listen}");
            assert!(enabled(&[("CAUDAL_HTTP__LISTEN", listen), ("CAUDAL_SQL__ENABLED", "true")]), "{listen}");
        }
        assert!(!enabled(&[("CAUDAL_SQL__ENABLED", "false")]));
        assert!(with(&[("CAUDAL_SQL__ENABLED", "sometimes")]).is_err());
    }

    #[test]
    fn other_addresses_than_loopback_need_a_key() {
        let open: SocketAddr = "0.0.0.0:80".parse().unwrap();
        assert!(with(&[]).unwrap().access(open).unwrap_err().to_string().contains("caudal keys new"));
        let hash = format!("[\"{}\"]", KeyHash::of("k"));
        assert!(matches!(with(&[("CAUDAL_HTTP__KEYS", &hash)]).unwrap().access(open), Ok(Access::Keys(_))));
        let local: SocketAddr = "127.0.0.1:80".parse().unwrap();
        assert!(matches!(with(&[]).unwrap().access(local), Ok(Access::Local { .. })));
    }
}
