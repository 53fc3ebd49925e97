//! CancelRequest: which connection a key belongs to, and the statement that runs there.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::Rng;
use tokio_util::sync::CancellationToken;

/// The statement a connection runs now, if any.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<Option<CancellationToken>>);

impl Running {
    /// A statement begins; the token fires when somebody cancels it.
    pub(crate) fn begin(&self) -> CancellationToken {
        let token = CancellationToken::new();
        *self.0.lock() = Some(token.clone());
        token
    }

    /// The statement has ended: later requests mean nothing.
    pub(crate) fn end(&self) {
        *self.0.lock() = None;
    }

    fn cancel(&self) {
        if let Some(token) = self.0.lock().as_ref() {
            token.cancel();
        }
    }
}

/// What a client needs to cancel from another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) process: i32,
    pub(crate) secret: i32,
}

/// All connections by process number.
#[derive(Debug, Default)]
pub(crate) struct Cancellations {
    by_process: Mutex<HashMap<i32, (i32, Arc<Running>)>>,
}

impl Cancellations {
    /// A new connection with a key of its own.
    pub(crate) fn enter(&self) -> (Key, Arc<Running>) {
        let running = Arc::new(Running::default());
        let mut by_process = self.by_process.lock();
        let process = loop {
            let process = rand::rng().random_range(1..i32::MAX);
            if !by_process.contains_key(&process) {
                break process;
            }
        };
        let secret = rand::rng().random();
        by_process.insert(process, (secret, running.clone()));
        (Key { process, secret }, running)
    }

    /// The connection has ended.
    pub(crate) fn leave(&self, key: Key) {
        self.by_process.lock().remove(&key.process);
    }

    /// Cancels the statement of the connection with this key; a wrong key does nothing, and is not told so.
    pub(crate) fn cancel(&self, key: Key) {
        let running = match self.by_process.lock().get(&key.process) {
            Some((secret, running)) if *secret == key.secret => running.clone(),
            _ => return,
        };
        running.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_key_cancels_and_only_what_runs() {
        let cancellations = Cancellations::default();
        let (key, running) = cancellations.enter();
        let token = running.begin();
        cancellations.cancel(Key { secret: key.secret.wrapping_add(1), ..key });
        assert!(!token.is_cancelled());
        cancellations.cancel(key);
        assert!(token.is_cancelled());
        running.end();
        cancellations.cancel(key);
        assert!(!running.begin().is_cancelled(), "a request that comes late does not hit the next statement");
        cancellations.leave(key);
    }
}
