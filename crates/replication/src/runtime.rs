//! The runtime Raft is told of: tokio's, but for what Raft draws by lot, which a simulation can decide.
//!
//! Raft draws the length of its election timeouts and the phase of its ticks, and finds its generator through a function without arguments.
//! So the seed belongs to the thread: a simulation has all its nodes on one.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend};
use rand_core::{Rng, TryRng};

// Its new home is a crate of its own; this name goes with the alpha.
#[allow(deprecated)]
type Tokio = openraft::impls::TokioRuntime;

thread_local! {
    /// Where the thread's own generator is; `None` where the system's is used.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on everything that Raft draws on this thread follows from `seed`. For simulations.
pub fn seed_elections(seed: u64) {
    SEED.set(Some(seed));
}

/// Tokio, with [`Lots`] to draw from.
#[derive(Debug)]
pub struct Runtime(Tokio);

/// Random numbers: the system's, or after [`seed_elections`] those of its seed.
#[derive(Clone, Copy, Debug)]
pub struct Lots;

impl TryRng for Lots {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|number| (number >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let Some(state) = SEED.get() else { return Ok(Tokio::thread_rng().next_u64()) };
        let (state, number) = split_mix(state);
        SEED.set(Some(state));
        Ok(number)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for part in bytes.chunks_mut(8) {
            let number = self.try_next_u64()?.to_le_bytes();
            part.copy_from_slice(&number[..part.len()]);
        }
        Ok(())
    }
}

/// The next state and its number. (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.)
fn split_mix(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, mixed ^ (mixed >> 31))
}

impl AsyncRuntime for Runtime {
    type JoinError = <Tokio as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Tokio as AsyncRuntime>::Sleep;
    type Instant = <Tokio as AsyncRuntime>::Instant;
    type TimeoutError = <Tokio as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Tokio as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Lots;
    type Mpsc = <Tokio as AsyncRuntime>::Mpsc;
    type Watch = <Tokio as AsyncRuntime>::Watch;
    type Oneshot = <Tokio as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Tokio::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Tokio::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Tokio::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        Tokio::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        Tokio::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        Tokio::is_panic(error)
    }

    fn thread_rng() -> Lots {
        Lots
    }

    fn new(threads: usize) -> Self {
        Runtime(Tokio::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws() -> [u64; 3] {
        std::array::from_fn(|_| Runtime::thread_rng().next_u64())
    }

    #[test]
    fn a_seed_decides_what_its_thread_draws() {
        let seeded = || std::thread::spawn(|| (seed_elections(7), draws()).1).join().expect("no panic");
        assert_eq!(seeded(), seeded());
        assert_ne!(draws(), seeded(), "another thread has the system's");
        assert_ne!(draws(), draws());
    }
}
