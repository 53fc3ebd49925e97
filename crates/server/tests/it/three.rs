//! Three nodes as child processes that know each other.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio_postgres::Client;

use crate::TestServer;
use crate::network::TestNetwork;
use crate::ports::free_port;
use crate::server::{Entrance, Setup, annal};

/// The groups of a new cluster: the catalog's and three for data.
const GROUPS: usize = 1 + event::limits::DATA_GROUPS;
/// Where nodes listen for each other that have addresses of their own.
const CLUSTER_PORT: u16 = 6532;
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(50);

/// A running cluster. Its processes are killed and its directories removed when it is dropped.
pub(crate) struct TestCluster {
    nodes: [TestServer; 3],
    /// What the nodes were started with is read again when they are started again.
    _certificates: Option<TempDir>,
}

impl TestCluster {
    /// Three nodes, all of which vote in all groups.
    pub(crate) async fn start() -> TestCluster {
        Self::start_as(Default::default()).await
    }

    /// The same where each node has a configuration file.
    pub(crate) async fn start_configured(files: &[PathBuf; 3]) -> TestCluster {
        Self::start_as(files.each_ref().map(|file| Setup { args: configured(file), ..Setup::default() })).await
    }

    /// The same with nodes that are run like that.
    pub(crate) async fn start_as(setups: [Setup; 3]) -> TestCluster {
        let addresses = [(); 3].map(|()| format!("127.0.0.1:{}", free_port()));
        Self::launch(setups, addresses).await
    }

    /// The same with nodes that have certificates and reach each other by that network, which must outlive the cluster.
    pub(crate) async fn start_on(network: &TestNetwork) -> TestCluster {
        let certificates = tempfile::tempdir().unwrap();
        let nodes = make_certificates(certificates.path(), &["one", "two", "three"]);
        let setup = |place: usize| {
            let args = configured(&write_configuration(&nodes[place]));
            Setup { args, namespace: Some(network.namespace(place)), ..Setup::default() }
        };
        let addresses = [0, 1, 2].map(|place| format!("{}:{CLUSTER_PORT}", network.address(place)));
        TestCluster { _certificates: Some(certificates), ..Self::launch([0, 1, 2].map(setup), addresses).await }
    }

    async fn launch(setups: [Setup; 3], addresses: [String; 3]) -> TestCluster {
        let mut nodes = Vec::new();
        for (mut setup, address) in setups.into_iter().zip(&addresses) {
            let mut flags = vec!["--cluster-listen", address];
            if *address != addresses[0] {
                flags.extend(["--join", &addresses[0]]);
            }
            setup.args.splice(0..0, flags.into_iter().map(str::to_owned));
            nodes.push(TestServer::start_as(setup).await);
        }
        let Ok(nodes) = nodes.try_into() else { unreachable!("three addresses give three nodes") };
        let cluster = TestCluster { nodes, _certificates: None };
        for place in 0..3 {
            while cluster.figures(place, "annal_replica_votes").await != [1.0; GROUPS] {
                tokio::time::sleep(POLL).await;
            }
        }
        cluster
    }

    pub(crate) fn node(&self, place: usize) -> &TestServer {
        &self.nodes[place]
    }

    pub(crate) fn node_mut(&mut self, place: usize) -> &mut TestServer {
        &mut self.nodes[place]
    }

    pub(crate) fn all_mut(&mut self) -> [&mut TestServer; 3] {
        self.nodes.each_mut()
    }

    /// Where other nodes connect to the first.
    pub(crate) fn seed(&self) -> String {
        let line = self.nodes[0].log().lines().find(|line| line.contains("other nodes are served")).map(str::to_owned);
        let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        line["address"].as_str().unwrap().to_owned()
    }

    /// Where clients of each node connect.
    pub(crate) fn dsns(&self) -> Vec<String> {
        self.nodes.iter().map(TestServer::dsn).collect()
    }

    /// The same for clients that may be in another namespace.
    pub(crate) fn entrances(&self) -> Vec<Entrance> {
        self.nodes.iter().map(TestServer::entrance).collect()
    }

    /// A client of the node at `place`.
    pub(crate) async fn connect(&self, place: usize) -> Client {
        self.nodes[place].connect().await
    }

    /// The place of the node that leads the group of the first table, the second data group, as the node at `place` says.
    pub(crate) async fn leader(&self, place: usize) -> usize {
        loop {
            if let [_, _, leader, _] = self.figures(place, "annal_replica_leader").await[..]
                && leader > 0.0
            {
                return leader as usize - 1;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until each node leads a data group, as all of them know.
    pub(crate) async fn settled(&self) {
        for place in 0..3 {
            loop {
                let mut leaders = self.figures(place, "annal_replica_leader").await.split_off(1);
                leaders.sort_by(f64::total_cmp);
                if leaders == [1.0, 2.0, 3.0] {
                    break;
                }
                tokio::time::sleep(POLL).await;
            }
        }
    }

    /// The places of the nodes that lead a group, as the node at `place` says.
    pub(crate) async fn leaders(&self, place: usize) -> Vec<usize> {
        let leaders = self.figures(place, "annal_replica_leader").await;
        leaders.into_iter().filter(|leader| *leader > 0.0).map(|leader| leader as usize - 1).collect()
    }

    /// A figure of each of a node's replicas, by group.
    pub(crate) async fn figures(&self, place: usize, name: &str) -> Vec<f64> {
        let (status, page) = self.nodes[place].http_get("/metrics").await;
        assert_eq!(status, 200);
        let values = page.lines().filter(|line| line.starts_with(name) && line.as_bytes()[name.len()] == b'{');
        values.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
    }
}

/// Makes certificates for nodes of these names, signed by the authority of a directory; where each of them lies.
pub(crate) fn make_certificates(directory: &Path, names: &[&str]) -> Vec<PathBuf> {
    let made = annal(["cert", "--dir"].map(OsStr::new)).arg(directory).args(names).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    names.iter().map(|name| directory.join(name)).collect()
}

/// Writes a configuration for the node whose certificate lies there; its path.
pub(crate) fn write_configuration(own: &Path) -> PathBuf {
    let file = own.join("annal.toml");
    let path = |name: &str| own.join(name).display().to_string();
    let [authority, certificate, key] = ["authority.pem", "node.pem", "node-key.pem"].map(path);
    let text = format!("[cluster]\nauthority = {authority:?}\ncertificate = {certificate:?}\nkey = {key:?}\n");
    std::fs::write(&file, text).unwrap();
    file
}

/// The flags of a node with that configuration.
pub(crate) fn configured(file: &Path) -> Vec<String> {
    vec!["--config".to_owned(), file.display().to_string()]
}
