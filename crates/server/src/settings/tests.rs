//! Settings: what is refused and how, and that the documentation lists every key.

use std::collections::BTreeSet;
use std::path::Path;

use expect_test::{Expect, expect};

use super::*;

fn load(text: &str) -> Result<Settings, SettingsError> {
    Settings::resolve(file::parse(text, Path::new("annal.toml"))?, &Overrides::default())
}

fn check_refused(text: &str, expected: Expect) {
    let error = load(text).expect_err("the file is wrong");
    expected.assert_eq(&format!("{}\n{}", error.message, error.hint.unwrap_or_default()));
}

#[test]
fn defaults_listen_on_loopback_only() {
    let settings = load("").unwrap();
    assert_eq!(settings.listen.to_string(), LISTEN_DEFAULT);
    assert!(settings.listen.ip().is_loopback());
    assert_eq!(settings.http_listen.unwrap().to_string(), HTTP_LISTEN_DEFAULT);
    assert_eq!(settings.memory, Memory::resolve(None, None, None, memory::of_machine()).unwrap());
    assert!(settings.query_cores >= QUERY_CORES_MIN);
}

#[test]
fn every_key_is_read() {
    let settings = load(
        r#"
        data_dir = "somewhere"
        listen = "127.0.0.1:7000"
        http_listen = "off"
        insecure = false
        shutdown_grace = "1500 ms"
        memory = "1 GiB"
        [query]
        memory = "256 MiB"
        cores = 3
        [cluster]
        groups = 5
        lease_reads = true
        [storage]
        seal_size = "8 MiB"
        [log]
        format = "json"
        filter = "warn,storage=debug"
        "#,
    )
    .unwrap();
    assert_eq!(settings.data_dir, Path::new("somewhere"));
    assert_eq!(settings.listen.port(), 7000);
    assert_eq!(settings.http_listen, None);
    assert_eq!(settings.shutdown_grace, Duration::from_millis(1500));
    assert_eq!(settings.memory, Memory { node: 1 << 30, queries: 256 << 20, seal: 8 << 20 });
    assert_eq!(settings.query_cores, 3);
    assert_eq!((settings.groups, settings.lease_reads), (5, true));
    assert_eq!((settings.log_format, settings.log_filter.as_str()), (LogFormat::Json, "warn,storage=debug"));
}

#[test]
fn flags_win_over_the_file() {
    let file = file::parse("listen = \"127.0.0.1:7000\"\ndata_dir = \"a\"", Path::new("annal.toml")).unwrap();
    let overrides = Overrides { listen: Some("localhost:7001".to_owned()), ..Overrides::default() };
    let settings = Settings::resolve(file, &overrides).unwrap();
    assert_eq!((settings.listen.port(), settings.data_dir.as_path()), (7001, Path::new("a")));
}

#[test]
fn a_slip_in_a_key_names_the_nearest_one() {
    check_refused(
        "data_dir = \"x\"\nlisten_http = \"127.0.0.1:1\"",
        expect![[r#"
            configuration file "annal.toml", line 2: unknown key "listen_http"
            docs/configuration.md lists every key"#]],
    );
    check_refused(
        "\nlisen = \"127.0.0.1:1\"",
        expect![[r#"
            configuration file "annal.toml", line 2: unknown key "lisen"
            did you mean "listen"?"#]],
    );
    check_refused(
        "[query]\nmemry = \"1 GiB\"",
        expect![[r#"
            configuration file "annal.toml", line 2: unknown key "query.memry"
            did you mean "query.memory"?"#]],
    );
    check_refused(
        "[raft]\nheartbeat = 3",
        expect![[r#"
            configuration file "annal.toml", line 1: unknown key "raft"
            docs/configuration.md lists every key"#]],
    );
}

#[test]
fn a_wrong_value_names_its_key_or_line() {
    check_refused(
        "insecure = false\nlisten = 6432",
        expect![[r#"
            configuration file "annal.toml", line 2: invalid type: integer `6432`, expected a string
        "#]],
    );
    check_refused(
        "listen = \"nowhere\"",
        expect![[r#"
        "listen" must be an IP address with a port, not "nowhere"
        for example 127.0.0.1:6432"#]],
    );
    check_refused(
        "shutdown_grace = \"soon\"",
        expect![[r#"
        "shutdown_grace" must be a duration, not "soon"
        a whole number with ms, s, min or h, for example "10 s""#]],
    );
    check_refused(
        "[query]\nmemory = \"64 MB\"",
        expect![[r#"
        "query.memory" must be a size, not "64 MB"
        a whole number with B, KiB, MiB, GiB or TiB, for example "64 MiB""#]],
    );
    check_refused(
        "[query]\ncores = 1",
        expect![[r#"
        "query.cores" must be between 2 and 256, not 1
    "#]],
    );
    check_refused(
        "[storage]\nseal_size = \"1 KiB\"",
        expect![[r#"
        "storage.seal_size" must be at least 4 MiB
    "#]],
    );
    check_refused(
        "[log]\nformat = \"xml\"",
        expect![[r#"
        "log.format" must be auto, text or json, not "xml"
    "#]],
    );
    check_refused(
        "listen = \n",
        expect![[r#"
        configuration file "annal.toml", line 1: string values must be quoted, expected literal string
    "#]],
    );
}

#[test]
fn other_machines_are_kept_out_unless_told() {
    check_refused(
        "listen = \"0.0.0.0:6432\"",
        expect![[r#"
        "listen" is 0.0.0.0:6432, which other machines can reach, and clients are not authenticated
        listen on 127.0.0.1, or say --insecure if the network itself keeps strangers out"#]],
    );
    check_refused(
        "http_listen = \"[::]:6480\"",
        expect![[r#"
        "http_listen" is [::]:6480, which other machines can reach, and clients are not authenticated
        listen on 127.0.0.1, or say --insecure if the network itself keeps strangers out"#]],
    );
    assert!(load("listen = \"0.0.0.0:6432\"\ninsecure = true").is_ok());
}

#[test]
fn a_node_among_others_is_reachable_and_known() {
    check_refused(
        "cluster.listen = \"0.0.0.0:6532\"",
        expect![[r#"
        "cluster.listen" is 0.0.0.0:6532, which other machines can reach, and nodes have no certificates
        annal cert makes them; or say --insecure if the network itself keeps strangers out"#]],
    );
    check_refused(
        "insecure = true\ncluster.listen = \"0.0.0.0:6532\"",
        expect![[r#"
        "cluster.listen" is 0.0.0.0:6532, an address nobody can connect to
        say --cluster-address HOST:PORT, where other nodes find this one"#]],
    );
    check_refused(
        "cluster.join = [\"10.0.0.7:6532\"]",
        expect![[r#"
        a node that joins others must be reached by them
        say --cluster-listen ADDRESS"#]],
    );
    check_refused(
        "cluster.listen = \"127.0.0.1:0\"\ncluster.join = [\"10.0.0.7\"]",
        expect![[r#"
        "cluster.join" must be a host with a port, not "10.0.0.7"
        for example 10.0.0.7:6532"#]],
    );
    check_refused(
        "cluster.listen = \"127.0.0.1:0\"\ncluster.key = \"key.pem\"",
        expect![[r#"
        "cluster.authority", "cluster.certificate" and "cluster.key" belong together
        annal cert makes all three"#]],
    );
    assert!(load("cluster.listen = \"127.0.0.1:0\"\ncluster.join = [\"one:6532\"]").is_ok());
}

#[test]
fn tokens_are_demanded_where_nothing_else_tells_nodes_from_strangers() {
    let demands = |text: &str| load(text).unwrap().cluster.unwrap().demands_tokens();
    let certificates = "cluster.authority = \"a\"\ncluster.certificate = \"c\"\ncluster.key = \"k\"\n";
    assert!(!demands("cluster.listen = \"127.0.0.1:0\""));
    assert!(demands("insecure = true\ncluster.listen = \"10.0.0.1:6532\""));
    assert!(!demands(&format!("{certificates}cluster.listen = \"10.0.0.1:6532\"")));
}

#[test]
fn the_list_of_keys_is_the_struct() {
    let text = || Some(String::new());
    let file = file::File {
        data_dir: text(),
        listen: text(),
        http_listen: text(),
        insecure: Some(false),
        shutdown_grace: text(),
        cluster: file::Cluster {
            listen: text(),
            address: text(),
            join: Some(Vec::new()),
            authority: text(),
            certificate: text(),
            key: text(),
            groups: Some(0),
            lease_reads: Some(false),
        },
        memory: text(),
        query: file::Query { memory: text(), cores: Some(0) },
        storage: file::Storage { seal_size: text(), url: text(), endpoint: text(), region: text(), cache_size: text() },
        log: file::Log { format: text(), filter: text() },
    };
    let mut fields = BTreeSet::new();
    for (key, value) in &toml::Table::try_from(&file).unwrap() {
        match value {
            toml::Value::Table(inner) => fields.extend(inner.keys().map(|below| format!("{key}.{below}"))),
            _ => drop(fields.insert(key.clone())),
        }
    }
    let keys: BTreeSet<String> = KEYS.iter().map(|key| key.name.to_owned()).collect();
    assert_eq!(fields, keys);
}

#[test]
fn the_documentation_lists_every_key_with_its_default() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows: Vec<(String, String)> = page
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
            let name = cells.next()?.trim_end_matches('`').to_owned();
            Some((name, cells.next()?.trim_matches('`').to_owned()))
        })
        .collect();
    let keys: Vec<(String, String)> = KEYS.iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect();
    assert_eq!(rows, keys);
}
