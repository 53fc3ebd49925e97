//! A network of three machines, each of them a Linux network namespace behind one bridge, whose packets can be dropped.
//!
//! Everything lies in namespaces of its own, so that several tests have such a network at once and nothing of the machine's network is touched.
//! Packets are dropped where they arrive, so that a link can be cut one way. A client of a node connects within the node's namespace, to
//! loopback, and notices nothing of it.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpStream;

/// Begins the names of all namespaces of tests; the id of the test's process follows.
const PREFIX: &str = "annal-test-";
/// Says that tests which need namespaces may be left out.
const WITHOUT: &str = "ANNAL_TEST_WITHOUT_NAMESPACES";
/// The hook where packets are dropped that arrive at a node.
const RULES: &str = "add table inet faults
add chain inet faults arriving { type filter hook input priority 0; policy accept; }";

/// The three machines. Their namespaces are removed when it is dropped, which must be after the servers in them.
pub(crate) struct TestNetwork {
    hub: String,
    machines: [String; 3],
}

impl TestNetwork {
    /// A network that drops nothing; `None` where there can be none and the environment says that this is accepted.
    ///
    /// # Panics
    /// Where there can be none: a test of partitions that does not run must not look as if it had succeeded.
    pub(crate) fn create() -> Option<TestNetwork> {
        remove_leftovers();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let machines = [1, 2, 3].map(|number| format!("{name}-{number}"));
        let network = TestNetwork { hub: format!("{name}-hub"), machines };
        if let Err(reason) = network.build() {
            assert!(
                std::env::var_os(WITHOUT).is_some(),
                "there are no network namespaces here, which a test of partitions needs: {reason}\n\
                 Run the tests as root with iproute2 and nftables, or set {WITHOUT}=1 to accept that partitions are not tested."
            );
            eprintln!("NOT TESTED: partitions, because there are no network namespaces here: {reason}");
            return None;
        }
        Some(network)
    }

    fn build(&self) -> Result<(), String> {
        let hub = self.hub.as_str();
        run("ip", &["netns", "add", hub])?;
        run("ip", &["-n", hub, "link", "add", "bridge", "type", "bridge"])?;
        run("ip", &["-n", hub, "link", "set", "bridge", "up"])?;
        for (place, machine) in self.machines.iter().enumerate() {
            let port = port(place);
            let address = format!("{}/24", self.address(place));
            run("ip", &["netns", "add", machine])?;
            let pair = ["type", "veth", "peer", "name", "wire", "netns", machine];
            run("ip", &[&["-n", hub, "link", "add", &port], &pair[..]].concat())?;
            run("ip", &["-n", hub, "link", "set", &port, "master", "bridge", "up"])?;
            run("ip", &["-n", machine, "addr", "add", &address, "dev", "wire"])?;
            run("ip", &["-n", machine, "link", "set", "wire", "up"])?;
            run("ip", &["-n", machine, "link", "set", "lo", "up"])?;
            self.filter(place, RULES)?;
        }
        Ok(())
    }

    /// The namespace of a machine.
    pub(crate) fn namespace(&self, place: usize) -> PathBuf {
        Path::new("/run/netns").join(&self.machines[place])
    }

    /// Where other machines find one.
    pub(crate) fn address(&self, place: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, place as u8 + 1)
    }

    /// From now on nothing that `from` sends arrives at `at`.
    pub(crate) fn deafen(&self, at: usize, from: usize) {
        self.rule(at, &format!("ip saddr {} drop", self.address(from)));
    }

    /// From now on nothing arrives at either machine that the other sends.
    pub(crate) fn cut(&self, one: usize, other: usize) {
        self.deafen(one, other);
        self.deafen(other, one);
    }

    /// Cuts a machine off from both others.
    pub(crate) fn isolate(&self, place: usize) {
        (0..3).filter(|other| *other != place).for_each(|other| self.cut(place, other));
    }

    /// From now on so many of a hundred packets are lost on their way to each machine.
    pub(crate) fn lose(&self, percent: u8) {
        (0..3).for_each(|place| self.rule(place, &format!("iif != lo numgen random mod 100 < {percent} drop")));
    }

    /// Pulls a machine's plug.
    pub(crate) fn unplug(&self, place: usize) {
        run("ip", &["-n", &self.hub, "link", "set", &port(place), "down"]).unwrap();
    }

    /// Everything arrives again everywhere.
    pub(crate) fn heal(&self) {
        for place in 0..3 {
            self.filter(place, "flush chain inet faults arriving").unwrap();
            run("ip", &["-n", &self.hub, "link", "set", &port(place), "up"]).unwrap();
        }
    }

    fn rule(&self, place: usize, rule: &str) {
        self.filter(place, &format!("add rule inet faults arriving {rule}")).unwrap();
    }

    fn filter(&self, place: usize, commands: &str) -> Result<(), String> {
        let namespace = format!("--net={}", self.namespace(place).display());
        run("nsenter", &[&namespace, "nft", commands])
    }
}

impl Drop for TestNetwork {
    fn drop(&mut self) {
        for name in self.machines.iter().chain([&self.hub]) {
            remove(name);
        }
    }
}

/// The machine's end of the wire at the bridge.
fn port(place: usize) -> String {
    format!("port{}", place + 1)
}

/// A connection to an address as it is seen within a namespace: a socket belongs to the one it was made in. Loopback only, as this blocks.
pub(crate) fn connect_inside(namespace: &Path, address: SocketAddr) -> io::Result<TcpStream> {
    let namespace = File::open(namespace)?;
    // Moving is a matter of one thread, which is used for nothing else afterwards.
    let inside = std::thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        std::net::TcpStream::connect(address)
    });
    let stream = inside.join().expect("connecting does not panic")?;
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// Ends what a test that was killed has left in its namespaces, and removes them.
fn remove_leftovers() {
    let listed = Command::new("ip").args(["netns", "list"]).output();
    let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    for name in listed.lines().filter_map(|line| line.split_whitespace().next()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(name);
        }
    }
}

/// Removes a namespace with all that runs in it; nothing to do when there is none.
fn remove(name: &str) {
    let listed = Command::new("ip").args(["netns", "pids", name]).output();
    let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    for pid in listed.lines().filter_map(|pid| pid.trim().parse().ok()).filter_map(Pid::from_raw) {
        let _ended_meanwhile = kill_process(pid, Signal::KILL);
    }
    let _not_there = run("ip", &["netns", "del", name]);
}

/// # Errors
/// What the program said, when it failed.
fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    let said = || format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    output.status.success().then_some(()).ok_or_else(said)
}
