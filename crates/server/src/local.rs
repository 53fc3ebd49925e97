//! `annal cluster start`: several nodes on this machine, for trying and for tests.
//!
//! Each node is a process of its own, as it would be on a machine of its own; this one only starts them, waits, and starts again whichever ends
//! with a failure (D22), unless it was taken out of the cluster. The ports are kept beside the data, so that a second start finds the same cluster.

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncSeekExt, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{EXIT_CAST_OUT, Error};

/// How many nodes and where, when nothing is said.
const NODES: usize = 3;
const PORT: u16 = 6432;
/// More are a mistake.
const NODES_MAX: usize = 9;
/// From a node's SQL port to that for other nodes, and for health and metrics.
const CLUSTER_PORT_OFFSET: u16 = 100;
const HTTP_PORT_OFFSET: u16 = 200;
/// Where free ports are looked for, and how far apart by two clusters that start at once.
const FREE_PORTS: Range<u16> = 10_000..20_000;
const FREE_PORTS_STEP: u16 = 40;
const LAYOUT_FILE: &str = "cluster.json";
/// What a node's data directory has once it belongs to a cluster.
const IDENTITY_FILE: &str = "identity.json";
/// Before a node that failed is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// What a node says once it serves clients.
const READY: &str = "ready for PostgreSQL clients";

/// What the command line says.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// How many nodes, when that is said: 3, or as many as there are.
    pub nodes: Option<usize>,
    /// The directory of their directories.
    pub data: PathBuf,
    /// The first SQL port, when that is said: 6432, or what it was; 0 takes free ones.
    pub port: Option<u16>,
}

/// Where the nodes of a local cluster are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Each node's addresses, in the order of the ids they got at first.
    pub nodes: Vec<LocalNode>,
    /// Whether all of them have been in the cluster: a directory that is empty after that has lost its node, and gets a new one.
    #[serde(default)]
    pub complete: bool,
}

/// The addresses of one node.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalNode {
    /// Where clients connect.
    pub sql: SocketAddr,
    /// Where other nodes connect.
    pub cluster: SocketAddr,
    /// Where health and metrics are served.
    pub http: SocketAddr,
}

/// A local cluster whose processes run.
#[derive(Debug)]
pub struct Local {
    layout: Layout,
    data: PathBuf,
    /// The processes, in the order of the layout; `None` for a node that was taken out of the cluster.
    children: Vec<Option<Child>>,
    /// Where the log of each begins in its file, which is appended to.
    logs: Vec<u64>,
}

/// Runs `annal cluster start`: until a signal ends it.
pub fn run(options: &LocalOptions) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut local = Local::start(options).await?;
        for (place, node) in local.layout.nodes.iter().enumerate() {
            say(&format!(
                "{}: psql \"host={} port={} user=annal dbname=annal\"",
                local.name(place),
                node.sql.ip(),
                node.sql.port()
            ));
        }
        say(&format!("\n{} nodes, data in {}; Ctrl-C stops them", local.layout.nodes.len(), local.data.display()));
        local.tend().await
    })
}

impl Local {
    /// Starts the nodes, and returns once each serves clients.
    pub async fn start(options: &LocalOptions) -> Result<Local, Error> {
        fs::create_dir_all(&options.data)?;
        let layout = layout(options)?;
        let logs = vec![0; layout.nodes.len()];
        let mut local = Local { layout, data: options.data.clone(), children: Vec::new(), logs };
        let founded = (0..local.layout.nodes.len()).any(|place| local.id(place).is_some());
        // Where nothing is left of a cluster, another one begins.
        local.layout.complete &= founded;
        for place in 0..local.layout.nodes.len() {
            let child = local.spawn(place)?;
            local.children.push(Some(child));
            // The first founds the cluster that the others join. Once it is founded they need each other.
            if (place == 0 && !founded) || place + 1 == local.layout.nodes.len() {
                local.wait_until_ready().await?;
            }
        }
        if !local.layout.complete {
            local.layout.complete = true;
            write_layout(&options.data, &local.layout)?;
        }
        Ok(local)
    }

    /// Where the nodes are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Starts again whichever node fails, until a signal comes; then stops them all.
    pub async fn tend(&mut self) -> Result<(), Error> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                (place, status) = any_ended(&mut self.children) => self.replace(place, &status).await?,
            }
        }
        self.stop().await
    }

    /// Starts a node again that has ended, if that is of any use.
    async fn replace(&mut self, place: usize, status: &io::Result<ExitStatus>) -> Result<(), Error> {
        if let Ok(status) = status
            && was_removed(status)
        {
            self.forget(place);
            return Ok(());
        }
        let status = status.as_ref().map_or_else(ToString::to_string, ToString::to_string);
        say(&format!("{} ended with {status} and is started again", self.name(place)));
        tokio::time::sleep(RESTART_PAUSE).await;
        self.children[place] = Some(self.spawn(place)?);
        Ok(())
    }

    /// The node has no place in the cluster any more, and has ended.
    fn forget(&mut self, place: usize) {
        say(&format!("{} has ended for good, as its log says, and is not started again", self.name(place)));
        self.children[place] = None;
    }

    /// Stops all nodes in good order.
    pub async fn stop(&mut self) -> Result<(), Error> {
        for child in self.children.iter().flatten() {
            if let Some(pid) = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
                // One that has ended already needs no signal.
                let _ended = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        for child in self.children.iter_mut().flatten() {
            child.wait().await?;
        }
        Ok(())
    }

    fn spawn(&mut self, place: usize) -> Result<Child, Error> {
        let node = self.layout.nodes[place];
        let dir = self.dir(place);
        let log = fs::OpenOptions::new().create(true).append(true).open(dir.with_extension("log"))?;
        self.logs[place] = log.metadata()?.len();
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("server").arg("--data").arg(&dir).args(["--log-format", "json"]);
        command.args(["--listen", &node.sql.to_string(), "--http", &node.http.to_string()]);
        command.args(["--cluster-listen", &node.cluster.to_string()]);
        if !self.layout.complete {
            command.args(["--node-id", &(place + 1).to_string()]);
        }
        // Who finds its directory empty joins whatever there is, and never founds a second cluster beside it.
        let founds =
            place == 0 && !self.layout.complete && !(1..self.layout.nodes.len()).any(|other| self.id(other).is_some());
        let others = self.layout.nodes.iter().enumerate().filter(|(other, _)| !founds && *other != place);
        for (_, other) in others {
            command.args(["--join", &other.cluster.to_string()]);
        }
        // A process group of its own: Ctrl-C is for this process, which stops them in order.
        command.process_group(0).kill_on_drop(true);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        spawned.map_err(|error| Error::Cluster(format!("could not start {}: {error}", self.name(place))))
    }

    /// The node that a data directory belongs to, if it does.
    fn id(&self, place: usize) -> Option<u64> {
        #[derive(Deserialize)]
        struct Identity {
            node: u64,
        }
        let text = fs::read_to_string(self.dir(place).join(IDENTITY_FILE)).ok()?;
        serde_json::from_str::<Identity>(&text).ok().map(|identity| identity.node)
    }

    /// What a node is called: by its id, or by its place while it has none.
    fn name(&self, place: usize) -> String {
        self.id(place).map_or_else(|| format!("the node in {}", self.dir(place).display()), |id| format!("node {id}"))
    }

    /// The data directory of a node.
    fn dir(&self, place: usize) -> PathBuf {
        self.data.join(format!("node-{}", place + 1))
    }

    /// Waits until every node started so far has said that it serves clients, or that it was taken out of the cluster.
    async fn wait_until_ready(&mut self) -> Result<(), Error> {
        for place in 0..self.children.len() {
            let log = self.dir(place).with_extension("log");
            while let Some(child) = &mut self.children[place]
                && !says_ready(&log, self.logs[place]).await?
            {
                if let Some(status) = child.try_wait()? {
                    if was_removed(&status) {
                        self.forget(place);
                        break;
                    }
                    let message = format!("{} ended with {status}; its log is {}", self.name(place), log.display());
                    return Err(Error::Cluster(message));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }
}

/// Whether the process whose log begins there has come to serve clients.
async fn says_ready(log: &Path, begin: u64) -> Result<bool, Error> {
    let mut file = tokio::fs::File::open(log).await?;
    file.seek(io::SeekFrom::Start(begin)).await?;
    let mut lines = BufReader::new(file).lines();
    while let Some(line) = lines.next_line().await? {
        if line.contains(READY) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn was_removed(status: &ExitStatus) -> bool {
    status.code() == Some(i32::from(EXIT_CAST_OUT))
}

/// Completes when a child has ended; never without any.
async fn any_ended(children: &mut [Option<Child>]) -> (usize, io::Result<ExitStatus>) {
    let running = children.iter_mut().enumerate().filter_map(|(place, child)| Some((place, child.as_mut()?)));
    let waits: Vec<_> = running.map(|(place, child)| Box::pin(async move { (place, child.wait().await) })).collect();
    if waits.is_empty() {
        return std::future::pending().await;
    }
    futures::future::select_all(waits).await.0
}

/// The addresses of a cluster that is there, or those of a new one.
fn layout(options: &LocalOptions) -> Result<Layout, Error> {
    let file = options.data.join(LAYOUT_FILE);
    if file.exists() {
        let unreadable =
            |error: serde_json::Error| Error::Cluster(format!("could not read \"{}\": {error}", file.display()));
        let layout: Layout = serde_json::from_str(&fs::read_to_string(&file)?).map_err(unreadable)?;
        check_same(options, &layout)?;
        return Ok(layout);
    }
    let count = options.nodes.unwrap_or(NODES);
    if count == 0 || count > NODES_MAX {
        return Err(Error::Cluster(format!("a cluster has between 1 and {NODES_MAX} nodes, not {count}")));
    }
    let mut held = Vec::new();
    let nodes = (0..count as u16).map(|place| node_at(options.port.unwrap_or(PORT), place, &mut held));
    let layout = Layout { nodes: nodes.collect::<Result<_, _>>()?, complete: false };
    drop(held);
    write_layout(&options.data, &layout)?;
    Ok(layout)
}

/// A cluster that is there stays as it is.
fn check_same(options: &LocalOptions, layout: &Layout) -> Result<(), Error> {
    let data = options.data.display();
    let there = layout.nodes.len();
    if let Some(nodes) = options.nodes.filter(|nodes| *nodes != there) {
        return Err(Error::Cluster(format!("the cluster in {data} has {there} nodes, not {nodes}: leave out --nodes")));
    }
    let port = layout.nodes.first().map_or(0, |node| node.sql.port());
    match options.port {
        Some(wanted) if wanted != 0 && wanted != port => {
            Err(Error::Cluster(format!("the cluster in {data} uses port {port}, not {wanted}: leave out --port")))
        }
        _ => Ok(()),
    }
}

/// Writes the layout beside the data, whole or not at all.
fn write_layout(data: &Path, layout: &Layout) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(layout).map_err(|error| Error::Cluster(error.to_string()))?;
    let written = data.join(LAYOUT_FILE).with_extension("tmp");
    fs::write(&written, text)?;
    fs::rename(&written, data.join(LAYOUT_FILE))?;
    Ok(())
}

/// The addresses of one node: ports after the first one, or free ones, which are held until all are chosen.
fn node_at(port: u16, place: u16, held: &mut Vec<TcpListener>) -> Result<LocalNode, Error> {
    let mut address = |offset: u16| {
        let listener = if port == 0 { free()? } else { bind(port + place + offset)? };
        let address = listener.local_addr()?;
        held.push(listener);
        Ok::<_, Error>(address)
    };
    Ok(LocalNode { sql: address(0)?, cluster: address(CLUSTER_PORT_OFFSET)?, http: address(HTTP_PORT_OFFSET)? })
}

/// A port that nobody listens on. It is none of those that the system hands to whoever asks for any: one of them could be somebody else's
/// before the node is there, or while it is down.
fn free() -> Result<TcpListener, Error> {
    let count = FREE_PORTS.end - FREE_PORTS.start;
    // Two clusters that start at once look in different places.
    let first = (std::process::id() % u32::from(count / FREE_PORTS_STEP)) as u16 * FREE_PORTS_STEP;
    let mut ports = (0..count).map(|next| FREE_PORTS.start + (first + next) % count);
    ports.find_map(|port| bind(port).ok()).map_or_else(|| bind(0), Ok)
}

fn bind(port: u16) -> Result<TcpListener, Error> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).map_err(|source| Error::Listen { address, source })
}

/// Prints a line; a reader that went away ends nothing.
fn say(text: &str) {
    let _gone = writeln!(std::io::stdout().lock(), "{text}");
}
