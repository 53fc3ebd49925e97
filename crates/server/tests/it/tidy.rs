//! What the house rules say and no lint can check: who may depend on whom, who may name what, how long a file may be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The tower, lowest first. A crate may depend on any crate before it.
const TOWER: [&str; 7] = ["event", "storage", "replication", "cluster", "query", "wire", "server"];
/// The traits of our own; everything else is a struct or a closed enum.
const TRAITS: [&str; 4] = ["Disk", "Clock", "Transport", "StateMachine"];
/// Lines of a file, its tests not counted.
const FILE_LINES_MAX: usize = 800;
/// Files of `cluster` that may name openraft.
const CLUSTER_OPENRAFT_FILES_MAX: usize = 1;

/// A source file: its path below the root, and its lines up to its tests.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The lines before the tests at the bottom of the file.
    fn product(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.text.find("#[cfg(test)]\nmod ").unwrap_or(self.text.len());
        self.text[..tests].lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// The same without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.product().filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every file below `dir` whose name ends in one of `endings`, in order.
fn files(dir: &str, endings: &[&str]) -> Vec<Source> {
    let root = root();
    let mut waiting = vec![root.join(dir)];
    let mut files = Vec::new();
    while let Some(path) = waiting.pop() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != ".git" {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
            let text = std::fs::read_to_string(&path).unwrap();
            files.push(Source { path: path.strip_prefix(&root).unwrap().display().to_string(), text });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!files.is_empty(), "there are files in {dir}");
    files
}

fn rust_files() -> Vec<Source> {
    files("crates", &[".rs"])
}

/// The product's own crates and what each depends on, tests included.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let mut crates = BTreeMap::new();
    for manifest in files("crates", &["Cargo.toml"]) {
        let manifest: toml::Table = manifest.text.parse().unwrap();
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        let tables = ["dependencies", "dev-dependencies", "build-dependencies"];
        let tables = tables.iter().filter_map(|table| manifest.get(*table)?.as_table());
        crates.insert(name, tables.flat_map(|table| table.keys().cloned()).collect());
    }
    crates
}

fn report(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn nothing_points_up() {
    let crates = dependencies();
    let mut violations = Vec::new();
    for (level, name) in TOWER.iter().enumerate() {
        let dependencies = crates.get(*name).unwrap_or_else(|| panic!("the tower has a crate \"{name}\""));
        violations.extend(
            dependencies
                .iter()
                .filter(|dependency| TOWER[level..].contains(&dependency.as_str()) || *dependency == "simulation")
                .map(|dependency| format!("{name} depends on {dependency}, which stands above it")),
        );
    }
    let above_cluster = ["query", "wire", "server"];
    violations.extend(
        crates["simulation"]
            .iter()
            .filter(|dependency| above_cluster.contains(&dependency.as_str()))
            .map(|dependency| format!("simulation depends on {dependency}, but must build without it")),
    );
    for name in crates.keys() {
        if !TOWER.contains(&name.as_str()) && name != "simulation" {
            violations.push(format!("crate \"{name}\" has no place in the tower"));
        }
    }
    report(&violations);
}

#[test]
fn each_room_knows_only_its_own_engine() {
    let home_of = [
        ("openraft", &["replication", "cluster"][..]),
        ("datafusion", &["query"][..]),
        ("datafusion-pg-catalog", &["query"][..]),
        ("pgwire", &["wire"][..]),
        ("arrow-pg", &["wire"][..]),
        ("axum", &["server"][..]),
        ("clap", &["server"][..]),
    ];
    let mut violations = Vec::new();
    for (name, dependencies) in dependencies() {
        for (engine, homes) in home_of {
            if dependencies.iter().any(|dependency| dependency == engine) && !homes.contains(&name.as_str()) {
                violations.push(format!("{name} depends on {engine}, which belongs to {}", homes.join(" and ")));
            }
        }
    }
    report(&violations);
}

#[test]
fn openraft_is_named_in_replication_and_one_adapter() {
    let naming: Vec<String> = rust_files()
        .into_iter()
        .filter(|file| !file.path.starts_with("crates/replication/") && !file.path.ends_with("tidy.rs"))
        .filter(|file| file.code().any(|(_, line)| line.contains("openraft")))
        .map(|file| file.path)
        .collect();
    let outside = naming.iter().filter(|path| !path.starts_with("crates/cluster/src/"));
    report(&outside.cloned().collect::<Vec<_>>());
    assert!(naming.len() <= CLUSTER_OPENRAFT_FILES_MAX, "more than one adapter: {naming:?}");
}

#[test]
fn a_trait_needs_two_implementations() {
    let mut violations = Vec::new();
    for file in rust_files().iter().filter(|file| !file.is_test()) {
        for (number, line) in file.code() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(at) = words.iter().position(|word| *word == "trait") else { continue };
            let declares = words[..at].iter().all(|word| word.starts_with("pub") || *word == "unsafe");
            let name = words.get(at + 1).map_or("", |word| word.split([':', '<', '{']).next().unwrap_or_default());
            if declares && !TRAITS.contains(&name) {
                violations.push(format!("{}:{number}: trait \"{name}\" is not one of {TRAITS:?}", file.path));
            }
        }
    }
    report(&violations);
}

#[test]
fn blocking_work_is_behind_the_disk() {
    let needle = concat!("spawn_", "blocking");
    let mut violations = Vec::new();
    for file in rust_files().iter().filter(|file| !file.is_test() && !file.path.starts_with("crates/storage/src/disk"))
    {
        for (number, line) in file.code().filter(|(_, line)| line.contains(needle)) {
            violations.push(format!("{}:{number}: {}", file.path, line.trim()));
        }
    }
    report(&violations);
}

#[test]
fn only_the_program_prints() {
    let needles = [concat!("print", "ln!("), concat!("eprint", "!("), concat!(" print", "!(")];
    let mut violations = Vec::new();
    for file in rust_files().iter().filter(|file| !file.is_test() && file.path != "crates/server/src/main.rs") {
        for (number, line) in file.code().filter(|(_, line)| needles.iter().any(|needle| line.contains(needle))) {
            violations.push(format!("{}:{number}: {}", file.path, line.trim()));
        }
    }
    report(&violations);
}

#[test]
fn a_file_holds_one_thing() {
    let violations: Vec<String> = rust_files()
        .iter()
        .map(|file| (&file.path, file.product().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(path, lines)| format!("{path} has {lines} lines, more than {FILE_LINES_MAX}"))
        .collect();
    report(&violations);
}

#[test]
fn every_file_says_what_it_is() {
    let mut files = rust_files();
    files.extend(self::files("benchmarks", &[".rs"]));
    let silent = files.iter().filter(|file| !file.path.ends_with("/tests.rs") && !file.text.starts_with("//! "));
    report(&silent.map(|file| format!("{} has no preamble", file.path)).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_for_later_and_no_machine_is_named() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("// XX", "X"),
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
    ];
    let mut texts = files("crates", &[".rs", ".toml", ".md", ".slt"]);
    texts.extend(files("docs", &[".md"]));
    texts.extend(files("scripts", &[".sh"]));
    texts.extend(files("benchmarks", &[".rs", ".toml", ".md", ".py", ".sh"]));
    texts.extend(files(".ci", &["run"]));
    for name in ["README.md", "CHANGELOG.md", "Cargo.toml", "deny.toml"] {
        texts.push(Source { path: name.to_owned(), text: std::fs::read_to_string(root().join(name)).unwrap() });
    }
    let mut violations = Vec::new();
    for file in &texts {
        for (index, line) in file.text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(*word)) {
                violations.push(format!("{}:{}: \"{word}\"", file.path, index + 1));
            }
        }
    }
    report(&violations);
}

#[test]
fn links_in_the_documentation_lead_somewhere() {
    let mut pages = files("docs", &[".md"]);
    for name in ["README.md", "CHANGELOG.md"] {
        pages.push(Source { path: name.to_owned(), text: std::fs::read_to_string(root().join(name)).unwrap() });
    }
    let mut violations = Vec::new();
    for page in &pages {
        for link in page.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            let is_file = !target.is_empty() && !target.contains("://") && !target.contains(char::is_whitespace);
            let below = root().join(&page.path);
            if is_file && !below.parent().unwrap().join(target).exists() {
                violations.push(format!("{}: \"{link}\" leads nowhere", page.path));
            }
        }
    }
    report(&violations);
}

#[test]
fn every_dependency_has_its_line() {
    let page = std::fs::read_to_string(root().join("docs/decisions/dependencies.md")).unwrap();
    let manifest: toml::Table = std::fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let ours = dependencies();
    let missing: Vec<String> = manifest["workspace"]["dependencies"]
        .as_table()
        .unwrap()
        .keys()
        .filter(|name| !ours.contains_key(*name) && !page.contains(&format!("| `{name}` |")))
        .map(|name| format!("\"{name}\" has no line in docs/decisions/dependencies.md"))
        .collect();
    report(&missing);
}
