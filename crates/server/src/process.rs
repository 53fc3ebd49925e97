//! One node in one process: threads, doors, node, engine, and the way they stop.
//!
//! Order of starting: addresses first (a taken port is known before any file is touched), then HTTP (a long recovery
//! can be watched), then the node, and clients that come before it serves are told so, then the PostgreSQL door. Stopping goes the other way round.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use cluster::{GrpcTransport, MemoryBudget, Node, NodeOptions, Place};
use event::{Entropy, NodeId, SystemClock};
use query::{Engine, EngineOptions};
use storage::RealDisk;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use wire::WireOptions;

use crate::error::{EXIT_FAILURE, Error};
use crate::http::{self, Pages};
use crate::runtimes::Runtimes;
use crate::settings::Settings;

/// Runs `annal server`: until a signal or the node's own failure ends it.
pub fn serve(settings: &Settings) -> Result<(), Error> {
    Process::start(settings)?.wait()
}

/// A node that serves clients, and the threads it runs on.
#[derive(Debug)]
pub struct Process {
    runtimes: Runtimes,
    service: Service,
}

/// What runs on the threads.
#[derive(Debug)]
struct Service {
    node: Arc<Node>,
    address: SocketAddr,
    pages: Arc<Pages>,
    door: JoinHandle<()>,
    signals: Signals,
    /// Why the node can go on no longer. Awaited where Raft runs: it looks at every change of Raft's state, and no other thread shall wake up
    /// for that.
    ended: AbortOnDropHandle<Error>,
}

/// The signals that end the process.
#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn any(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

impl Process {
    /// Starts everything; returns once clients are served.
    pub fn start(settings: &Settings) -> Result<Process, Error> {
        crate::logs::start(settings);
        let runtimes = Runtimes::start(settings.query_cores, settings.cluster.is_none())?;
        let started = runtimes.front().clone().block_on(Service::start(settings, &runtimes));
        match started {
            Ok(service) => Ok(Process { runtimes, service }),
            Err(error) => {
                runtimes.stop();
                Err(error)
            }
        }
    }

    /// Where PostgreSQL clients connect.
    pub fn address(&self) -> SocketAddr {
        self.service.address
    }

    /// Runs `work` on the front threads; `None` when a signal came first.
    pub(crate) fn run_until_signal<T, F>(&mut self, work: F) -> Result<Option<T>, Error>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.runtimes.front().clone().block_on(async {
            tokio::select! {
                done = tokio::spawn(work) => match done {
                    Ok(done) => Ok(Some(done)),
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                },
                _ = self.service.signals.any() => Ok(None),
                ended = &mut self.service.ended => Err(end_of(ended)),
            }
        })
    }

    /// Serves until a signal comes, then stops; ends with an error when the node fails (D22), or has no place in its cluster.
    pub fn wait(mut self) -> Result<(), Error> {
        let front = self.runtimes.front().clone();
        let ended = front.block_on(async {
            tokio::select! {
                name = self.service.signals.any() => {
                    tracing::info!(signal = name, "stopping");
                    None
                }
                ended = &mut self.service.ended => Some(end_of(ended)),
            }
        });
        match ended {
            None => self.stop(),
            Some(cast_out @ Error::CastOut(_)) => {
                tracing::error!(reason = %cast_out, "stopping for good");
                if let Err(error) = self.stop() {
                    tracing::warn!(%error, "did not stop in order; nobody needs the data directory any more");
                }
                Err(cast_out)
            }
            Some(failed) => {
                tracing::error!(reason = %failed, "restart the node to recover from disk");
                // No farewell: whatever touches the disk now may trust pages that never reached it.
                self.runtimes.stop();
                Err(failed)
            }
        }
    }

    /// Takes no more clients, gives running statements their grace, syncs and releases the data directory. A second
    /// signal ends the process at once.
    pub fn stop(self) -> Result<(), Error> {
        let Process { runtimes, service } = self;
        let Service { node, pages, door, mut signals, .. } = service;
        let front = runtimes.front().clone();
        front.spawn(async move {
            let name = signals.any().await;
            tracing::warn!(signal = name, "stopped at once; recovery will replay the log");
            std::process::exit(i32::from(EXIT_FAILURE));
        });
        let stopped = front.block_on(async move {
            pages.stopping.cancel();
            if let Err(error) = door.await {
                tracing::warn!(%error, "the PostgreSQL door did not close in order");
            }
            node.shutdown().await.map_err(Error::Stop)
        });
        runtimes.stop();
        tracing::info!("stopped");
        stopped
    }
}

impl Service {
    /// Starts everything; returns once clients are served.
    async fn start(settings: &Settings, runtimes: &Runtimes) -> Result<Service, Error> {
        let mut signals =
            Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting node");
        let (listener, address) = listen(settings.listen).await?;
        let pages = Arc::new(Pages {
            node: OnceLock::new(),
            registry: prometheus::Registry::new(),
            stopping: CancellationToken::new(),
        });
        if let Some(http_address) = settings.http_listen {
            let (listener, address) = listen(http_address).await?;
            tracing::info!(%address, "health and metrics are served");
            tokio::spawn(http::serve(listener, pages.clone()));
        }
        let place = place(settings, runtimes, address).await?;
        let node = tokio::select! {
            node = open(settings, runtimes, place) => node?,
            never = wire::turn_away(&listener) => match never {},
            name = signals.any() => {
                tracing::info!(signal = name, "stopped while starting");
                // Nothing was acknowledged yet, and whatever recovery wrote it can write again.
                std::process::exit(0);
            }
        };
        let engine = Engine::new(EngineOptions {
            node: node.clone(),
            runtime: runtimes.query().clone(),
            memory_bytes: settings.memory.queries,
            partitions: settings.query_cores,
        });
        let options = WireOptions {
            registry: pages.registry.clone(),
            stop: pages.stopping.clone(),
            grace: settings.shutdown_grace,
        };
        let door = tokio::spawn(wire::serve(listener, engine, options));
        assert!(pages.node.set(node.clone()).is_ok(), "a process starts its node once");
        tracing::info!(%address, data_dir = %settings.data_dir.display(), "ready for PostgreSQL clients");
        let watcher = node.clone();
        let ended = AbortOnDropHandle::new(runtimes.consensus().spawn(async move {
            tokio::select! {
                reason = watcher.failed() => Error::NodeFailed(reason),
                reason = watcher.cast_out() => Error::CastOut(reason),
            }
        }));
        Ok(Service { node, address, pages, door, signals, ended })
    }
}

/// Why the node can go on no longer, as the task that watches it says.
fn end_of(watched: Result<Error, JoinError>) -> Error {
    watched.unwrap_or_else(|error| Error::NodeFailed(format!("the task that watches the node ended: {error}")))
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Takes the node's address among others, where clients find it at `sql`.
async fn place(settings: &Settings, runtimes: &Runtimes, sql: SocketAddr) -> Result<Place, Error> {
    let Some(cluster) = &settings.cluster else { return Ok(Place::alone()) };
    let (listener, address) = listen(cluster.listen).await?;
    let tls = cluster.certificates.as_ref().map(crate::certificates::read).transpose()?;
    tracing::info!(%address, encrypted = tls.is_some(), "other nodes are served");
    let (consensus, encode) = (runtimes.consensus().clone(), runtimes.encode().clone());
    let transport = Arc::new(GrpcTransport::new(listener, consensus, encode, tls));
    let address = cluster.address.clone().unwrap_or_else(|| address.to_string());
    let wanted = cluster.node_id.map(NodeId);
    let (sql_address, join) = (sql.to_string(), cluster.join.clone());
    let (token, demands_tokens) = (cluster.join_token.clone(), cluster.demands_tokens());
    Ok(Place { transport, address, sql_address, join, wanted, token, demands_tokens })
}

/// Opens the data directory on the consensus threads.
async fn open(settings: &Settings, runtimes: &Runtimes, place: Place) -> Result<Arc<Node>, Error> {
    let remote = settings.remote.as_ref().map(crate::remote::segments).transpose();
    let disk = RealDisk::new(&settings.data_dir);
    let disk = if settings.cluster.is_none() { disk.syncing_in_place() } else { disk };
    let options = NodeOptions {
        disk: Arc::new(disk),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(Entropy::from_os()),
        consensus: runtimes.consensus().clone(),
        encode: runtimes.encode().clone(),
        seal_bytes: settings.memory.seal,
        data_groups: settings.groups,
        lease_reads: settings.lease_reads,
        log_file_bytes: event::limits::LOG_FILE_BYTES,
        memory: MemoryBudget::new(settings.memory.node),
        place,
        remote: remote.map_err(|source| Error::Remote { source })?,
    };
    match runtimes.consensus().spawn(Node::start(options)).await {
        Ok(Ok(node)) => Ok(node),
        Ok(Err(cast_out)) if cast_out.is_final() => Err(Error::CastOut(cast_out)),
        Ok(Err(cluster::Error::NotInState { reason, hint })) => Err(Error::NotTakenIn { reason, hint }),
        Ok(Err(source)) => Err(Error::Open { data_dir: settings.data_dir.display().to_string(), source }),
        Err(error) => Err(Error::Start(std::io::Error::other(error))),
    }
}
