//! Three nodes as child processes that know each other.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio_postgres::Client;

use crate::TestServer;

/// Below the ports that the system gives to whoever asks for any.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
/// The groups of a new cluster: the catalog's and three for data.
const GROUPS: usize = 1 + event::limits::DATA_GROUPS;
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(50);

/// A running cluster. Its processes are killed and its directories removed when it is dropped.
pub(crate) struct TestCluster {
    nodes: [TestServer; 3],
}

impl TestCluster {
    /// Three nodes, all of which vote in all groups.
    pub(crate) async fn start() -> TestCluster {
        Self::start_with(&[]).await
    }

    /// The same where each node has a configuration file.
    pub(crate) async fn start_configured(files: &[PathBuf; 3]) -> TestCluster {
        Self::launch(files.each_ref().map(|file| vec!["--config".to_owned(), file.display().to_string()])).await
    }

    /// The same with more flags for each node.
    pub(crate) async fn start_with(args: &[&str]) -> TestCluster {
        Self::launch([(); 3].map(|()| args.iter().map(|word| (*word).to_owned()).collect())).await
    }

    async fn launch(args: [Vec<String>; 3]) -> TestCluster {
        let ports = [free_port(), free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
        let mut nodes = Vec::new();
        for (port, args) in ports.iter().zip(&args) {
            let mut flags = vec!["--cluster-listen", port.as_str()];
            if *port != ports[0] {
                flags.extend(["--join", ports[0].as_str()]);
            }
            flags.extend(args.iter().map(String::as_str));
            nodes.push(TestServer::start_with(&flags).await);
        }
        let Ok(nodes) = nodes.try_into() else { unreachable!("three ports give three nodes") };
        let cluster = TestCluster { nodes };
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

    /// A figure of each of a node's replicas, by group.
    pub(crate) async fn figures(&self, place: usize, name: &str) -> Vec<f64> {
        let (status, page) = self.nodes[place].http_get("/metrics").await;
        assert_eq!(status, 200);
        let values = page.lines().filter(|line| line.starts_with(name) && line.as_bytes()[name.len()] == b'{');
        values.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
    }
}

/// A port that nobody listens on, another one each time.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = (std::process::id() % 100) as u16 * 100;
    loop {
        let port = PORTS.start + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % (PORTS.end - PORTS.start);
        if TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok() {
            return port;
        }
    }
}
