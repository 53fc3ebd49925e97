//! The four runtimes: consensus, front, query, encode.
//!
//! Invariant: a query or an encoder that never yields delays no heartbeat, login, cancel or health check. Each kind of
//! work has its own threads, and the kinds that burn CPU run at a lower priority of the operating system, so that the
//! scheduler prefers the threads the cluster's life depends on.
//!
//! A node that is alone keeps no heartbeats: its consensus runs on the front's threads, so that a statement goes from the socket to the log and
//! back without waking another thread for each step (decision 0011).

use std::io;
use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

/// The most threads for Raft, timers, the log writer and apply, and as many for sockets, login, cancel and HTTP. What they do is
/// short and goes from one to the other: a thread more than there are cores for is woken to find that nothing is left to do, which
/// costs more than the work itself.
const SERVING_THREADS_MAX: usize = 2;
/// Query threads for each core that queries may use. Some operators do not yield for minutes, even after their query was
/// cancelled; others find a thread, and the operating system shares the cores between them.
const QUERY_THREADS_PER_CORE: usize = 4;
/// Threads that sort and encode segments, and copy them from node to node. One segment is encoded at a time, so that one thread is left for
/// what other nodes wait for.
const ENCODE_THREADS: usize = 2;
/// Stack of every thread. Planning descends by recursion through expressions, and an overflow would end the process.
const THREAD_STACK_BYTES: usize = 32 << 20;
/// Steps of niceness by which queries and encoding stand back.
const BACKGROUND_NICENESS: i32 = 10;
/// How long blocking work may hold up the end of the process.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// The threads of a process.
#[derive(Debug)]
pub(crate) struct Runtimes {
    /// `None` where the front's threads do its work.
    consensus: Option<Runtime>,
    front: Runtime,
    query: Runtime,
    encode: Runtime,
}

impl Runtimes {
    /// Starts all threads; queries get those for `query_cores`. `is_alone` says that no other node will ever ask this one.
    pub(crate) fn start(query_cores: usize, is_alone: bool) -> io::Result<Runtimes> {
        let serving = serving_threads(available_parallelism().map_or(1, NonZero::get));
        let consensus = if is_alone { None } else { Some(runtime("consensus", serving, 0)?) };
        Ok(Runtimes {
            front: runtime("front", if consensus.is_some() { serving } else { 2 * serving }, 0)?,
            consensus,
            query: runtime("query", query_cores * QUERY_THREADS_PER_CORE, BACKGROUND_NICENESS)?,
            encode: runtime("encode", ENCODE_THREADS, BACKGROUND_NICENESS)?,
        })
    }

    /// Raft, timers, the log writer and apply; nothing else may run there, but for the front of a node that is alone.
    pub(crate) fn consensus(&self) -> &Handle {
        self.consensus.as_ref().unwrap_or(&self.front).handle()
    }

    /// Sockets, login, cancel, HTTP.
    pub(crate) fn front(&self) -> &Handle {
        self.front.handle()
    }

    /// Plans, queries, COPY decoding.
    pub(crate) fn query(&self) -> &Handle {
        self.query.handle()
    }

    /// Sorting and Parquet encoding, reading and copying whole segments.
    pub(crate) fn encode(&self) -> &Handle {
        self.encode.handle()
    }

    /// Ends all threads. Whatever still computes is abandoned: all that matters is on disk by now.
    pub(crate) fn stop(self) {
        self.query.shutdown_background();
        self.encode.shutdown_background();
        let last = match self.consensus {
            Some(consensus) => {
                self.front.shutdown_background();
                consensus
            }
            None => self.front,
        };
        last.shutdown_timeout(SHUTDOWN_TIMEOUT);
    }
}

/// Half of the cores for each of the two runtimes that serve.
fn serving_threads(cores: usize) -> usize {
    (cores / 2).clamp(1, SERVING_THREADS_MAX)
}

fn runtime(name: &'static str, threads: usize, niceness: i32) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .thread_stack_size(THREAD_STACK_BYTES)
        .enable_all()
        .on_thread_start(move || stand_back(name, niceness))
        .build()
}

/// Lowers the priority of the calling thread. On Linux a thread has its own niceness; children do not matter here.
fn stand_back(name: &str, niceness: i32) {
    if niceness == 0 {
        return;
    }
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), niceness) {
        tracing::warn!(runtime = name, %error, "could not lower the priority of a thread");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn niceness_of_a_thread(handle: &Handle) -> i32 {
        let (send, receive) = std::sync::mpsc::channel();
        handle.spawn(async move {
            let thread = rustix::thread::gettid();
            send.send(rustix::process::getpriority_process(Some(thread)).unwrap()).unwrap();
        });
        receive.recv().unwrap()
    }

    #[test]
    fn what_burns_cpu_stands_back() {
        let runtimes = Runtimes::start(2, false).unwrap();
        let here = rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap();
        let background = BACKGROUND_NICENESS.max(here);
        assert_eq!(niceness_of_a_thread(runtimes.consensus()), here);
        assert_eq!(niceness_of_a_thread(runtimes.front()), here);
        assert_eq!(niceness_of_a_thread(runtimes.query()), background);
        assert_eq!(niceness_of_a_thread(runtimes.encode()), background);
        runtimes.stop();
    }

    #[test]
    fn a_query_that_never_yields_delays_nothing_else() {
        for is_alone in [false, true] {
            queries_delay_nothing(Runtimes::start(2, is_alone).unwrap());
        }
    }

    fn queries_delay_nothing(runtimes: Runtimes) {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        for _ in 0..2 * QUERY_THREADS_PER_CORE {
            let stop = stop.clone();
            runtimes.query().spawn(async move {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let (send, receive) = std::sync::mpsc::channel();
        for handle in [runtimes.consensus(), runtimes.front(), runtimes.encode()] {
            let send = send.clone();
            handle.spawn(async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                send.send(()).unwrap();
            });
        }
        for _ in 0..3 {
            receive.recv().unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        runtimes.stop();
    }
}
