//! Many calls on one gRPC stream.
//!
//! A gRPC call of its own costs headers, the state of a stream and several tasks on both sides: more than the small statement or the question
//! for a read index that it carries. So the calls of a lane to a node share one stream of numbered messages, and answers come back in the
//! order in which they are ready.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::server::StreamingService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::chain;
use crate::door::Door;
use crate::proof::Proof;

/// Where the stream is opened.
pub(super) const PATH: &str = "/annal.Peer/Calls";
/// Calls that wait to be sent; who makes one more waits himself.
const QUEUED_MAX: usize = 256;
/// Calls of one stream that are worked on at once; those after them are not read yet.
const AT_ONCE_MAX: usize = 4096;
/// Bytes before each message.
const HEAD_BYTES: usize = size_of::<u64>() + size_of::<u32>();

/// A message of one of the calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    /// The number of the call, of which its answer has the same.
    number: u64,
    /// For how many milliseconds its caller waits: nothing is worked on for longer. 0 in answers.
    ttl_ms: u32,
    message: Bytes,
}

/// The calling side of one stream.
#[derive(Debug)]
pub(super) struct Line {
    queue: mpsc::Sender<Numbered>,
    waiting: Arc<Waiting>,
    next: AtomicU64,
    /// Hands out the answers.
    _reader: AbortOnDropHandle<()>,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// It was not sent.
    NotSent(String),
    /// It may have been.
    Lost(String),
}

impl Line {
    /// Opens a stream over a connection; what it needs runs on `runtime`.
    pub(super) async fn open(mut client: Grpc<Channel>, runtime: &Handle) -> Result<Line, Status> {
        let (queue, mut queued) = mpsc::channel(QUEUED_MAX);
        let messages = stream::poll_fn(move |context| queued.poll_recv(context));
        let path = PathAndQuery::from_static(PATH);
        let opened = client.streaming(Request::new(messages), path, NumberedCodec).await?;
        let waiting = Arc::new(Waiting::default());
        let reader = read(opened.into_inner(), Closing(Arc::clone(&waiting)));
        Ok(Line { queue, waiting, next: AtomicU64::new(0), _reader: AbortOnDropHandle::new(runtime.spawn(reader)) })
    }

    /// Whether calls can still be made.
    pub(super) fn is_open(&self) -> bool {
        self.waiting.open.lock().is_ok()
    }

    /// Sends a message and waits for its answer. Who stops waiting before `ttl` has passed does not stop what was asked for.
    pub(super) async fn call(&self, message: Bytes, ttl: Duration) -> Result<Bytes, Unanswered> {
        let number = self.next.fetch_add(1, Relaxed);
        let (answer, answered) = oneshot::channel();
        let _place = Place::take(&self.waiting, number, answer).map_err(Unanswered::NotSent)?;
        let ttl_ms = u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX);
        if self.queue.send(Numbered { number, ttl_ms, message }).await.is_err() {
            return Err(Unanswered::NotSent("the stream has ended".into()));
        }
        match answered.await {
            Ok(answer) => answer.map_err(Unanswered::Lost),
            Err(_) => Err(Unanswered::Lost("the stream has ended".into())),
        }
    }
}

/// Hands out answers until the stream ends.
async fn read(mut answers: Streaming<Numbered>, closing: Closing) {
    let reason = loop {
        match answers.message().await {
            Ok(Some(answer)) => closing.0.answer(answer),
            Ok(None) => break "the other side has ended the stream".to_owned(),
            Err(status) => break chain(&status),
        }
    };
    closing.0.close(reason);
}

/// Where an answer goes, or the reason why there is none.
type Answer = oneshot::Sender<Result<Bytes, String>>;

/// The calls of a stream that have no answer yet; once it has ended, why.
#[derive(Debug)]
struct Waiting {
    open: Mutex<Result<HashMap<u64, Answer>, String>>,
}

impl Default for Waiting {
    fn default() -> Waiting {
        Waiting { open: Mutex::new(Ok(HashMap::new())) }
    }
}

impl Waiting {
    fn answer(&self, answer: Numbered) {
        let waiting = self.open.lock().as_mut().ok().and_then(|open| open.remove(&answer.number));
        if let Some(waiting) = waiting {
            // Whoever waited may just have stopped.
            let _ = waiting.send(Ok(answer.message));
        }
    }

    /// Nothing comes any more; the first reason stays.
    fn close(&self, reason: String) {
        let mut open = self.open.lock();
        if let Ok(calls) = &mut *open {
            for (_, waiting) in calls.drain() {
                let _ = waiting.send(Err(reason.clone()));
            }
            *open = Err(reason);
        }
    }
}

/// Closes a stream whose reader is dropped before its end.
struct Closing(Arc<Waiting>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close("the stream was given up".into());
    }
}

/// Waits for an answer; nobody does when it is dropped.
struct Place<'a> {
    waiting: &'a Waiting,
    number: u64,
}

impl<'a> Place<'a> {
    /// # Errors
    /// Why the stream has ended.
    fn take(waiting: &'a Waiting, number: u64, answer: Answer) -> Result<Place<'a>, String> {
        waiting.open.lock().as_mut().map_err(|reason| reason.clone())?.insert(number, answer);
        Ok(Place { waiting, number })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Ok(open) = &mut *self.waiting.open.lock() {
            open.remove(&self.number);
        }
    }
}

/// The answering side.
pub(super) struct CallsMethod(pub(super) Door, pub(super) Proof);

impl StreamingService<Numbered> for CallsMethod {
    type Response = Numbered;
    type ResponseStream = BoxStream<'static, Result<Numbered, Status>>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Numbered>>) -> Self::Future {
        let (door, proof) = (self.0.clone(), Arc::new(self.1.clone()));
        Box::pin(async move {
            let (answer, mut answers) = mpsc::channel(QUEUED_MAX);
            tokio::spawn(work(request.into_inner(), door, proof, answer));
            Ok(Response::new(stream::poll_fn(move |context| answers.poll_recv(context)).map(Ok).boxed()))
        })
    }
}

/// Answers calls, each on a task of its own, until no more come.
async fn work(mut calls: Streaming<Numbered>, door: Door, proof: Arc<Proof>, answer: mpsc::Sender<Numbered>) {
    let room = Arc::new(Semaphore::new(AT_ONCE_MAX));
    // A message that cannot be read ends the stream, and so does a caller who is gone.
    while let Ok(Some(Numbered { number, ttl_ms, message })) = calls.message().await {
        let place = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        let (door, proof, answer) = (door.clone(), Arc::clone(&proof), answer.clone());
        tokio::spawn(async move {
            if let Some(message) = within(ttl_ms, door.call(message, &proof)).await {
                // The caller may be gone.
                let _ = answer.send(Numbered { number, ttl_ms: 0, message }).await;
            }
            drop(place);
        });
    }
}

/// The answer, unless nobody waits for it any more: what waits for a majority or for room on the disk may wait for ever.
async fn within(ttl_ms: u32, answer: impl Future<Output = Bytes>) -> Option<Bytes> {
    tokio::time::timeout(Duration::from_millis(ttl_ms.into()), answer).await.ok()
}

/// The number in eight bytes and the time in four, then the message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NumberedCodec;

impl Codec for NumberedCodec {
    type Encode = Numbered;
    type Decode = Numbered;
    type Encoder = NumberedCodec;
    type Decoder = NumberedCodec;

    fn encoder(&mut self) -> NumberedCodec {
        NumberedCodec
    }

    fn decoder(&mut self) -> NumberedCodec {
        NumberedCodec
    }
}

impl Encoder for NumberedCodec {
    type Item = Numbered;
    type Error = Status;

    fn encode(&mut self, call: Numbered, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(HEAD_BYTES + call.message.len());
        out.put_u64_le(call.number);
        out.put_u32_le(call.ttl_ms);
        out.put(call.message);
        Ok(())
    }
}

impl Decoder for NumberedCodec {
    type Item = Numbered;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Numbered>, Status> {
        if message.remaining() < HEAD_BYTES {
            return Err(Status::invalid_argument("a call without a number"));
        }
        let (number, ttl_ms) = (message.get_u64_le(), message.get_u32_le());
        let len = message.remaining();
        Ok(Some(Numbered { number, ttl_ms, message: message.copy_to_bytes(len) }))
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join;

    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    /// A line whose other end the test holds.
    fn line() -> (Line, mpsc::Receiver<Numbered>) {
        let (queue, queued) = mpsc::channel(QUEUED_MAX);
        let reader = AbortOnDropHandle::new(tokio::spawn(std::future::pending()));
        (Line { queue, waiting: Arc::default(), next: AtomicU64::new(0), _reader: reader }, queued)
    }

    #[tokio::test]
    async fn each_call_gets_its_answer_in_whatever_order_they_come() {
        let (line, mut queued) = line();
        let calls = join(line.call(Bytes::from_static(b"one"), TTL), line.call(Bytes::from_static(b"two"), TTL));
        let answering = async {
            let (first, second) = (queued.recv().await.unwrap(), queued.recv().await.unwrap());
            assert_eq!((first.ttl_ms, second.ttl_ms), (10_000, 10_000));
            line.waiting.answer(second);
            line.waiting.answer(Numbered { number: 77, ttl_ms: 0, message: Bytes::from_static(b"to nobody") });
            line.waiting.answer(first);
        };
        let ((one, two), ()) = join(calls, answering).await;
        assert_eq!((one, two), (Ok(Bytes::from_static(b"one")), Ok(Bytes::from_static(b"two"))));
        assert!(line.waiting.open.lock().as_ref().unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_was_sent_before_the_end_is_lost_and_what_comes_after_it_is_not_sent() {
        let (line, mut queued) = line();
        let ending = async {
            queued.recv().await.unwrap();
            line.waiting.close("it broke".into());
            line.waiting.close("it broke again".into());
        };
        let (lost, ()) = join(line.call(Bytes::new(), TTL), ending).await;
        assert_eq!(lost, Err(Unanswered::Lost("it broke".into())));
        assert!(!line.is_open());
        assert_eq!(line.call(Bytes::new(), TTL).await, Err(Unanswered::NotSent("it broke".into())));
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_nothing_behind() {
        let (line, mut queued) = line();
        let mut call = Box::pin(line.call(Bytes::new(), TTL));
        assert!(futures::poll!(&mut call).is_pending());
        drop(call);
        assert!(line.waiting.open.lock().as_ref().unwrap().is_empty());
        line.waiting.answer(queued.recv().await.unwrap());
    }

    #[tokio::test]
    async fn a_reader_that_is_given_up_closes_its_line() {
        let (line, _queued) = line();
        drop(Closing(Arc::clone(&line.waiting)));
        assert_eq!(line.call(Bytes::new(), TTL).await, Err(Unanswered::NotSent("the stream was given up".into())));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_worked_on_for_longer_than_somebody_waits() {
        assert_eq!(
            within(50, std::future::ready(Bytes::from_static(b"soon"))).await,
            Some(Bytes::from_static(b"soon"))
        );
        let begun = tokio::time::Instant::now();
        assert_eq!(within(50, std::future::pending()).await, None);
        assert_eq!(begun.elapsed(), Duration::from_millis(50));
    }
}
