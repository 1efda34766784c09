//! The walls between the crates (ARCHITECTURE.md, "Parts"), from the manifests.

use toml::{Table, Value};

use super::Finding;
use super::tree::Tree;

/// Which of the workspace's crates a crate may depend on.
const EDGES: [(&str, &[&str]); 11] = [
    ("caudal-core", &[]),
    ("caudal-engine", &["caudal-core"]),
    ("caudal-store", &["caudal-core"]),
    ("caudal-broker", &["caudal-core"]),
    ("caudal-confirm", &["caudal-core"]),
    ("caudal-export", &["caudal-core"]),
    ("caudal-http", &["caudal-core", "caudal-engine", "caudal-export"]),
    ("caudal-probe", &["caudal-core"]),
    (
        "caudal",
        &[
            "caudal-broker",
            "caudal-confirm",
            "caudal-core",
            "caudal-engine",
            "caudal-export",
            "caudal-http",
            "caudal-probe",
            "caudal-store",
        ],
    ),
    ("caudal-testkit", &["caudal-core"]),
    // The no-op server of the benchmarks uses the same accept loop as Caudal, and the drain bench the tests' brokers. It is never
    // shipped.
    ("xtask", &["caudal-http", "caudal-testkit"]),
];

const TESTKIT: &str = "caudal-testkit";

const RUNTIME: &[&str] = &["tokio", "tokio-util", "async-std", "smol", "mio", "futures-executor"];
const SQL: &[&str] = &[
    "rusqlite",
    "libsqlite3-sys",
    "tokio-postgres",
    "postgres",
    "postgres-types",
    "tokio-postgres-rustls",
    "deadpool-postgres",
    "bb8-postgres",
    "sqlx",
    "diesel",
    "sea-query",
];
const HTTP: &[&str] = &[
    "axum",
    "axum-core",
    "hyper",
    "hyper-util",
    "http",
    "http-body",
    "http-body-util",
    "tower",
    "tower-http",
    "reqwest",
];
const SERVER: &[&str] = &["axum", "axum-core", "tower", "tower-http"];
/// A name that ends in `-` stands for all names that start so.
const VENDORS: &[&str] = &[
    // Not all of `aws-`: aws-lc-rs is cryptography, the one that TLS uses.
    "aws-config",
    "aws-credential-",
    "aws-runtime",
    "aws-sdk-",
    "aws-sigv4",
    "aws-smithy-",
    "aws-types",
    "lapin",
    "redis",
    "fred",
    "rdkafka",
    "async-nats",
];
/// Who else calls the program than a socket or a terminal: a role's business.
const CALLERS: &[&str] = &["lambda_runtime", "lambda_http"];
/// Where files can lie: an export's business.
const FILES: &[&str] = &["object_store"];
const PARSERS: &[&str] = &["jsonschema", "csv-core", "csv"];
const SETTINGS: &[&str] = &["clap", "config", "toml", "dotenvy", "figment"];

/// What a crate must not depend on from outside, and the reason.
const FORBIDDEN: [(&str, &str, &[&[&str]]); 9] = [
    (
        "caudal-core",
        "the core has no runtime, SQL, HTTP, SDK or settings: put it behind a port",
        &[RUNTIME, SQL, HTTP, VENDORS, FILES, CALLERS, SETTINGS],
    ),
    (
        "caudal-engine",
        "the engine knows ports, not SQL, HTTP or vendors",
        &[SQL, HTTP, VENDORS, FILES, CALLERS, SETTINGS],
    ),
    (
        "caudal-export",
        "an export reads through the store's port and serves nothing",
        &[SQL, HTTP, VENDORS, CALLERS, PARSERS, SETTINGS],
    ),
    ("caudal-store", "a store has no HTTP and no message formats", &[HTTP, FILES, CALLERS, PARSERS, SETTINGS]),
    (
        "caudal-broker",
        "a broker has no SQL, serves no HTTP and does not parse payloads",
        &[SQL, SERVER, FILES, CALLERS, PARSERS, SETTINGS],
    ),
    (
        "caudal-confirm",
        "a confirmer makes one call: it has no SQL, serves nothing and reads no settings",
        &[SQL, SERVER, FILES, CALLERS, PARSERS, SETTINGS],
    ),
    (
        "caudal-http",
        "HTTP reaches data through the engine's ports, never by a driver",
        &[SQL, VENDORS, FILES, CALLERS, SETTINGS],
    ),
    (
        "caudal-probe",
        "the probe is a client that knows only the HTTP interface",
        &[SQL, SERVER, VENDORS, FILES, CALLERS, SETTINGS],
    ),
    ("caudal", "drivers belong to their adapters", &[SQL, VENDORS, FILES]),
];

/// One dependency as a manifest has it.
struct Dependency<'t> {
    kind: &'t str,
    name: String,
}

/// Normal, build and target-specific dependencies, renames undone.
fn dependencies<'t>(manifest: &'t Table, workspace: &Table) -> Vec<Dependency<'t>> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let holders = targets.filter_map(Value::as_table).chain([manifest]);
    let mut all = Vec::new();
    for holder in holders {
        for kind in ["dependencies", "build-dependencies", "dev-dependencies"] {
            for (key, value) in holder.get(kind).and_then(Value::as_table).into_iter().flatten() {
                let shared = value.get("workspace").and_then(|_| workspace.get(key)?.get("package"));
                let renamed = value.get("package").or(shared).and_then(Value::as_str);
                all.push(Dependency { kind, name: renamed.unwrap_or(key).to_owned() });
            }
        }
    }
    all
}

fn workspace_dependencies(tree: &Tree) -> Table {
    let root = tree.text("Cargo.toml").and_then(|text| text.parse::<Table>().ok()).unwrap_or_default();
    let shared = root.get("workspace").and_then(|w| w.get("dependencies")).and_then(Value::as_table);
    shared.cloned().unwrap_or_default()
}

/// Which crate depends on which: (from, to), for what is built into programs.
pub(super) fn graph(tree: &Tree) -> Vec<(String, String)> {
    let shared = workspace_dependencies(tree);
    let manifests = tree.manifests();
    let mut edges = Vec::new();
    for (_, name, manifest) in manifests.iter().filter(|(_, name, _)| name != "xtask") {
        for dependency in dependencies(manifest, &shared) {
            if dependency.kind == "dependencies" && manifests.iter().any(|(_, own, _)| *own == dependency.name) {
                edges.push((name.clone(), dependency.name));
            }
        }
    }
    edges.sort();
    edges.dedup();
    edges
}

pub(super) fn edges(tree: &Tree) -> Vec<Finding> {
    let shared = workspace_dependencies(tree);
    let manifests = tree.manifests();
    let mut findings = Vec::new();
    for (path, name, manifest) in &manifests {
        let Some((_, allowed)) = EDGES.iter().find(|(from, _)| from == name) else {
            let say = format!("crate {name:?} has no wall: say in xtask/src/tidy/walls.rs what it may depend on");
            findings.push(Finding::new(*path, say));
            continue;
        };
        for Dependency { kind, name: to } in dependencies(manifest, &shared) {
            let own = to.starts_with("caudal") || manifests.iter().any(|(_, own, _)| *own == to);
            if !own || allowed.contains(&to.as_str()) || (to == TESTKIT && kind == "dev-dependencies") {
                continue;
            }
            findings.push(Finding::new(
                *path,
                match to.as_str() {
                    TESTKIT => format!("{name} ships {TESTKIT}: move it to [dev-dependencies]"),
                    _ => format!("{name} must not depend on {to} ([{kind}]); it may on: {}", listed(allowed)),
                },
            ));
        }
    }
    findings
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "no crate of the workspace".to_owned() } else { names.join(", ") }
}

pub(super) fn externals(tree: &Tree) -> Vec<Finding> {
    let shared = workspace_dependencies(tree);
    let mut findings = Vec::new();
    for (path, name, manifest) in tree.manifests() {
        let Some((_, why, forbidden)) = FORBIDDEN.iter().find(|(of, ..)| *of == name) else { continue };
        for Dependency { kind, name: to } in dependencies(&manifest, &shared) {
            // Tests may look at a table or send a request behind the code's back.
            if kind != "dev-dependencies" && forbidden.iter().any(|list| covers(list, &to)) {
                findings.push(Finding::new(path, format!("remove {to} from [{kind}]: {why}")));
            }
        }
    }
    findings
}

fn covers(list: &[&str], name: &str) -> bool {
    list.iter().any(|entry| match entry.strip_suffix('-') {
        Some(_) => name.starts_with(entry),
        None => *entry == name,
    })
}

/// Only `compose.rs` names stores, brokers and confirmers.
pub(super) fn adapters_named_once(tree: &Tree) -> Vec<Finding> {
    let sources = tree.texts("crates/caudal/src/", ".rs").filter(|(path, _)| !path.ends_with("src/compose.rs"));
    let mut findings = Vec::new();
    for (path, text) in sources {
        for (number, line) in super::source::code_lines(text) {
            if let Some(adapter) =
                ["caudal_store", "caudal_broker", "caudal_confirm"].iter().find(|adapter| line.contains(**adapter))
            {
                let say = format!("line {number} names {adapter}: only compose.rs names adapters");
                findings.push(Finding::new(path, say));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::says;
    use super::*;

    const CORE: &str = "[package]\nname = \"caudal-core\"\n[dependencies]\nserde.workspace = true\n";

    fn tree(path: &str, manifest: &str) -> Tree {
        let root = "[workspace.dependencies]\nserde = \"1\"\nquick-db = { package = \"rusqlite\", version = \"1\" }\n";
        let store = "[package]\nname = \"caudal-store\"\n[dependencies]\ncaudal-core.workspace = true\n";
        let broker = "[package]\nname = \"caudal-broker\"\n[dependencies]\ncaudal-core.workspace = true\n";
        let mut files = vec![
            ("Cargo.toml", root),
            ("crates/caudal-core/Cargo.toml", CORE),
            ("crates/caudal-store/Cargo.toml", store),
            ("crates/caudal-broker/Cargo.toml", broker),
        ];
        files.retain(|(there, _)| *there != path);
        files.push((path, manifest));
        Tree::of(&files)
    }

    #[test]
    fn a_tree_within_the_walls_has_no_findings() {
        let good = tree("crates/caudal-core/Cargo.toml", CORE);
        assert_eq!(edges(&good), []);
        assert_eq!(externals(&good), []);
        assert_eq!(graph(&good).len(), 2);
    }

    #[test]
    fn adapters_that_see_each_other_are_found() {
        let file = "crates/caudal-store/Cargo.toml";
        let planted =
            tree(file, "[package]\nname = \"caudal-store\"\n[dependencies]\ncaudal-broker.workspace = true\n");
        assert!(says(&edges(&planted), file, "must not depend on caudal-broker"));
        let planted = tree(
            file,
            "[package]\nname = \"caudal-store\"\n[dev-dependencies]\ncaudal-broker = { path = \"../caudal-broker\" }\n",
        );
        assert!(says(&edges(&planted), file, "must not depend on caudal-broker"));
    }

    #[test]
    fn a_core_that_depends_on_anything_of_ours_is_found() {
        let file = "crates/caudal-core/Cargo.toml";
        let planted = tree(file, "[package]\nname = \"caudal-core\"\n[dependencies]\ncaudal-store.workspace = true\n");
        assert!(says(&edges(&planted), file, "no crate of the workspace"));
    }

    #[test]
    fn a_shipped_testkit_is_found_and_a_dev_one_is_not() {
        let file = "crates/caudal-store/Cargo.toml";
        let of =
            |kind: &str| format!("[package]\nname = \"caudal-store\"\n[{kind}]\ncaudal-testkit.workspace = true\n");
        assert!(says(&edges(&tree(file, &of("dependencies"))), file, "ships caudal-testkit"));
        assert!(says(&edges(&tree(file, &of("build-dependencies"))), file, "ships caudal-testkit"));
        assert_eq!(edges(&tree(file, &of("dev-dependencies"))), []);
    }

    #[test]
    fn a_crate_without_a_wall_is_found() {
        let file = "crates/caudal-extra/Cargo.toml";
        assert!(says(&edges(&tree(file, "[package]\nname = \"caudal-extra\"\n")), file, "has no wall"));
    }

    #[test]
    fn forbidden_externals_are_found_renamed_and_for_a_target_too() {
        let file = "crates/caudal-core/Cargo.toml";
        let with = |rest: &str| externals(&tree(file, &format!("[package]\nname = \"caudal-core\"\n{rest}")));
        assert!(says(&with("[dependencies]\ntokio.workspace = true\n"), file, "remove tokio"));
        assert!(says(&with("[dependencies]\nquick-db.workspace = true\n"), file, "remove rusqlite"));
        assert!(says(&with("[dependencies]\nweb = { package = \"axum\", version = \"0\" }\n"), file, "remove axum"));
        assert!(says(&with("[target.'cfg(unix)'.dependencies]\nreqwest = \"0\"\n"), file, "remove reqwest"));
        assert!(says(&with("[dependencies]\naws-sdk-sqs = \"1\"\n"), file, "remove aws-sdk-sqs"));
        assert_eq!(with("[dev-dependencies]\ntokio = \"1\"\n"), []);
    }

    #[test]
    fn each_wall_catches_its_own() {
        let cases = [
            ("caudal-engine", "axum"),
            ("caudal-engine", "tokio-postgres"),
            ("caudal-store", "reqwest"),
            ("caudal-broker", "rusqlite"),
            ("caudal-confirm", "tokio-postgres"),
            ("caudal-confirm", "axum"),
            ("caudal-http", "rusqlite"),
            ("caudal-probe", "tokio-postgres"),
            ("caudal", "rusqlite"),
        ];
        for (of, external) in cases {
            let file = format!("crates/{of}/Cargo.toml");
            let manifest = format!("[package]\nname = \"{of}\"\n[dependencies]\n{external} = \"1\"\n");
            assert!(says(&externals(&tree(&file, &manifest)), &file, external), "{of} {external}");
        }
    }

    #[test]
    fn an_adapter_named_outside_compose_is_found() {
        let line = "use caudal_store::sqlite::SqliteStore;\n";
        let planted = Tree::of(&[("crates/caudal/src/compose.rs", line), ("crates/caudal/src/roles/up.rs", line)]);
        let findings = adapters_named_once(&planted);
        assert!(says(&findings, "crates/caudal/src/roles/up.rs", "line 1 names caudal_store"));
        assert_eq!(findings.len(), 1);
    }
}
