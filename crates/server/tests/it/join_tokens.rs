//! A cluster without certificates that listens beyond loopback demands a token of each node that joins, and takes it once.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::TestServer;
use crate::network::TestNetwork;
use crate::server::{PROGRAM, Setup};

/// A machine of the network, and the flags of a node on it.
struct Machine<'n> {
    network: &'n TestNetwork,
    place: usize,
}

impl Machine<'_> {
    fn flags(&self, token: Option<&str>) -> Vec<String> {
        let address = |place| format!("{}:6532", self.network.address(place));
        let mut flags = vec!["--insecure".to_owned(), "--cluster-listen".to_owned(), address(self.place)];
        if self.place > 0 {
            flags.extend(["--join".to_owned(), address(0)]);
        }
        flags.extend(token.into_iter().flat_map(|token| ["--join-token".to_owned(), token.to_owned()]));
        flags
    }

    async fn start(&self, token: Option<&str>) -> TestServer {
        let namespace = Some(self.network.namespace(self.place));
        TestServer::start_as(Setup { args: self.flags(token), namespace, ..Setup::default() }).await
    }

    /// Starts a node that is not let in; what it says of that.
    fn refused(&self, token: Option<&str>) -> String {
        let data = tempfile::tempdir().unwrap();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.network.namespace(self.place).display())).args([PROGRAM, "server"]);
        command.args(self.flags(token)).args(["--listen", "127.0.0.1:0", "--http", "off", "--data"]).arg(data.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut said = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let line = said.find(|line| ["could not join", "ready for PostgreSQL"].iter().any(|word| line.contains(word)));
        process.kill().unwrap();
        process.wait().unwrap();
        let line = line.expect("it says how it goes on");
        assert!(line.contains("could not join the cluster"), "it was let in: {line}");
        assert!(!data.path().join("identity.json").exists(), "it belongs to nobody");
        line
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_with_a_token_that_nobody_has_used() {
    let Some(network) = TestNetwork::create() else { return };
    let [first, second, third] = [0, 1, 2].map(|place| Machine { network: &network, place });
    let founder = first.start(None).await;
    let client = founder.connect().await;
    let token: String = client.query_one("SELECT annal.join_token()", &[]).await.unwrap().get(0);
    let said = second.refused(None);
    assert!(said.contains("a node joins this cluster with a token, and shows none"), "{said}");
    let said = second.refused(Some("annal-join-guessed"));
    assert!(said.contains("the join token was never made, is used up, or holds no longer"), "{said}");
    let mut joined = second.start(Some(&token)).await;
    let said = third.refused(Some(&token));
    assert!(said.contains("is used up"), "{said}");
    assert!(!said.contains(&token), "a log shows no token");
    let nodes = client.query_one("SELECT count(*) FROM annal.nodes", &[]).await.unwrap();
    assert_eq!(nodes.get::<_, i64>(0), 2);
    // Who is in needs no token to come back.
    assert!(joined.stop().await.success());
    joined.restart().await;
}
