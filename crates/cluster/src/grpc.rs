//! Nodes connected by gRPC: one connection for each pair of nodes and kind of message, shared by all groups.
//!
//! Messages are bytes of our own (see `message`); gRPC gives connections that are kept alive, streams with back-pressure, and TLS.

mod arrivals;
mod calls;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes};
use event::limits;
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::Service;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::server::{TcpConnectInfo, TcpIncoming, TlsConnectInfo};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server};
use tonic::{Code, Request, Response, Status, Streaming};

use self::arrivals::Refusals;
use self::calls::{CallsMethod, Line, NumberedCodec, Unanswered};
use crate::door::Door;
use crate::proof::Proof;
use crate::transport::{Answers, Lane, Messages, Transport, TransportError};

type Call = tonic::codegen::http::Request<Body>;
type Reply = tonic::codegen::http::Response<Body>;

const STREAM_PATH: &str = "/annal.Peer/Stream";
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection is asked for a sign of life after this time without any, and given up when none comes for as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Bytes under way on one stream, so that a log stream is not held up by its window.
const WINDOW_BYTES: u32 = 4 << 20;
/// The name that every node's certificate has.
pub const CERTIFICATE_NAME: &str = "annal-node";

/// What nodes prove to each other who they are with, all in PEM.
#[derive(Clone)]
pub struct TlsMaterial {
    /// The certificate of the authority that signs nodes.
    pub authority: String,
    /// This node's certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsMaterial")
    }
}

/// The stream of calls to an address. It is opened by one caller at a time.
type Slot = tokio::sync::Mutex<Opened>;

/// What became of the last try to open a stream of calls.
#[derive(Debug, Default)]
struct Opened {
    line: Option<Arc<Line>>,
    /// When it failed, and why: so it has for all who have waited for it.
    failed: Option<(Instant, TransportError)>,
    /// Whether one ever succeeded.
    is_known: bool,
}

/// The gRPC transport of one node.
pub struct GrpcTransport {
    listener: Mutex<Option<TcpListener>>,
    runtime: Handle,
    /// Runs the connections that bring segments.
    bulk: Handle,
    tls: Option<TlsMaterial>,
    channels: Mutex<BTreeMap<(String, Lane), Channel>>,
    lines: Mutex<BTreeMap<(String, Lane), Arc<Slot>>>,
    server: Mutex<Option<AbortOnDropHandle<()>>>,
    refusals: Arc<Refusals>,
}

impl GrpcTransport {
    /// A transport that will serve on `listener`. Its tasks run on `runtime`, those of connections that bring segments on `bulk`.
    pub fn new(listener: TcpListener, runtime: Handle, bulk: Handle, tls: Option<TlsMaterial>) -> GrpcTransport {
        GrpcTransport {
            listener: Mutex::new(Some(listener)),
            runtime,
            bulk,
            tls,
            channels: Mutex::default(),
            lines: Mutex::default(),
            server: Mutex::default(),
            refusals: Arc::default(),
        }
    }

    /// What tasks of a lane run on.
    fn runtime(&self, lane: Lane) -> &Handle {
        if lane == Lane::Bulk { &self.bulk } else { &self.runtime }
    }

    /// The stream of calls to an address; it is opened when it is first used, and again when it has ended.
    async fn line(&self, address: &str, lane: Lane) -> Result<Arc<Line>, TransportError> {
        let begun = Instant::now();
        let slot = Arc::clone(self.lines.lock().entry((address.to_owned(), lane)).or_default());
        let mut opened = slot.lock().await;
        if let Some(line) = opened.line.as_ref().filter(|line| line.is_open()) {
            return Ok(Arc::clone(line));
        }
        // Those who waited for one try do not make one each, one after the other.
        if let Some((_, error)) = opened.failed.as_ref().filter(|(failed, _)| *failed >= begun) {
            return Err(error.clone());
        }
        let line = match self.open_line(address, lane).await {
            Err(TransportError::Unreachable { address, reason }) if !opened.is_known => {
                let reason = arrivals::explained(reason, self.tls.is_some());
                Err(TransportError::Unreachable { address, reason })
            }
            line => line,
        };
        *opened = match &line {
            Ok(line) => Opened { line: Some(Arc::clone(line)), failed: None, is_known: true },
            Err(error) => {
                let failed = Some((Instant::now(), error.clone()));
                Opened { line: None, failed, is_known: opened.is_known }
            }
        };
        line
    }

    async fn open_line(&self, address: &str, lane: Lane) -> Result<Arc<Line>, TransportError> {
        let mut client = tonic::client::Grpc::new(self.channel(address, lane)?)
            .max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX);
        client.ready().await.map_err(|error| unreachable(address, &error))?;
        // Whatever went wrong, nobody's message was sent.
        let line = Line::open(client, self.runtime(lane)).await.map_err(|status| unreachable(address, &status))?;
        Ok(Arc::new(line))
    }

    /// The connection to an address; it is made when it is first used, and again when it was lost.
    fn channel(&self, address: &str, lane: Lane) -> Result<Channel, TransportError> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(&(address.to_owned(), lane)) {
            return Ok(channel.clone());
        }
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let unusable = |error: tonic::transport::Error| unreachable(address, &error);
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(unusable)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        if let Some(tls) = &self.tls {
            let config = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(&tls.authority))
                .identity(Identity::from_pem(&tls.certificate, &tls.key))
                .domain_name(CERTIFICATE_NAME);
            endpoint = endpoint.tls_config(config).map_err(unusable)?;
        }
        // What a connection needs is started where it is made, whoever uses it first.
        let _runtime = self.runtime(lane).enter();
        let channel = endpoint.connect_lazy();
        channels.insert((address.to_owned(), lane), channel.clone());
        Ok(channel)
    }
}

#[async_trait]
impl Transport for GrpcTransport {
    async fn serve(&self, door: Door) {
        let Some(listener) = self.listener.lock().take() else { return };
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let acceptor = match self.tls.as_ref().map(arrivals::acceptor).transpose() {
            Ok(acceptor) => acceptor,
            Err(error) => {
                tracing::error!(%error, "the certificates between nodes cannot be used");
                return;
            }
        };
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let (service, refusals) = (PeerService { door }, Arc::clone(&self.refusals));
        let serving = self.runtime.spawn(async move {
            let served = match acceptor {
                Some(acceptor) => {
                    server.serve_with_incoming(service, arrivals::encrypted(incoming, acceptor, refusals)).await
                }
                None => server.serve_with_incoming(service, arrivals::plain(incoming, refusals)).await,
            };
            if let Err(error) = served {
                tracing::error!(%error, "other nodes are not served any more");
            }
        });
        self.server.lock().replace(AbortOnDropHandle::new(serving));
    }

    async fn call(
        &self,
        address: &str,
        lane: Lane,
        message: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        let deadline = Instant::now() + timeout;
        let (to, reason) = (|| address.to_owned(), || format!("no answer within {timeout:?}"));
        let line = match timeout_at(deadline, self.line(address, lane)).await {
            Ok(line) => line?,
            Err(_) => return Err(TransportError::Unreachable { address: to(), reason: reason() }),
        };
        match timeout_at(deadline, line.call(message, timeout)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Unanswered::NotSent(reason))) => Err(TransportError::Unreachable { address: to(), reason }),
            Ok(Err(Unanswered::Lost(reason))) => Err(TransportError::Lost { address: to(), reason }),
            Err(_) => Err(TransportError::Lost { address: to(), reason: reason() }),
        }
    }

    async fn stream(&self, address: &str, lane: Lane, messages: Messages) -> Result<Answers, TransportError> {
        let mut client = tonic::client::Grpc::new(self.channel(address, lane)?)
            .max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX);
        client.ready().await.map_err(|error| unreachable(address, &error))?;
        let path = PathAndQuery::from_static(STREAM_PATH);
        let opened = client.streaming(Request::new(messages), path, BytesCodec).await;
        let answers = opened.map_err(|status| failed(address, &status))?.into_inner();
        let address = address.to_owned();
        Ok(answers.map(move |answer| answer.map_err(|status| failed(&address, &status))).boxed())
    }
}

impl fmt::Debug for GrpcTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrpcTransport({} connections)", self.channels.lock().len())
    }
}

fn unreachable(address: &str, error: &dyn std::error::Error) -> TransportError {
    TransportError::Unreachable { address: address.to_owned(), reason: chain(error) }
}

/// Only what says so itself was not delivered.
fn failed(address: &str, status: &Status) -> TransportError {
    let (address, reason) = (address.to_owned(), chain(status));
    match status.code() {
        Code::Unavailable if reason.contains("connect") => TransportError::Unreachable { address, reason },
        _ => TransportError::Lost { address, reason },
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The service behind the two paths.
#[derive(Clone)]
struct PeerService {
    door: Door,
}

impl NamedService for PeerService {
    const NAME: &'static str = "annal.Peer";
}

impl Service<Call> for PeerService {
    type Response = Reply;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let (door, proof) = (self.door.clone(), proof_of(&call));
        Box::pin(async move {
            Ok(match call.uri().path() {
                calls::PATH => {
                    let grpc = Grpc::new(NumberedCodec);
                    let mut grpc = grpc.max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX);
                    grpc.streaming(CallsMethod(door, proof), call).await
                }
                STREAM_PATH => {
                    let mut grpc = Grpc::new(BytesCodec).max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX);
                    grpc.streaming(StreamMethod(door, proof), call).await
                }
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// What the connection that a call came by has proven.
fn proof_of(call: &Call) -> Proof {
    let connection = call.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
    let certificates = connection.and_then(TlsConnectInfo::peer_certs);
    // The first is the other side's own; those after it are its signers'.
    certificates.and_then(|chain| chain.first().cloned()).map_or_else(Proof::default, Proof::of)
}

struct StreamMethod(Door, Proof);

impl StreamingService<Bytes> for StreamMethod {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (door, proof) = (self.0.clone(), self.1.clone());
        Box::pin(async move {
            // A message that cannot be read ends the stream.
            let messages = request.into_inner().take_while(|message| std::future::ready(message.is_ok()));
            let messages = messages.filter_map(|message| std::future::ready(message.ok()));
            let answers = door.stream(messages.boxed(), &proof).await;
            Ok(Response::new(answers.map(Ok).boxed()))
        })
    }
}

/// Messages as they are.
#[derive(Clone, Copy, Debug, Default)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = BytesCodec;
    type Decoder = BytesCodec;

    fn encoder(&mut self) -> BytesCodec {
        BytesCodec
    }

    fn decoder(&mut self) -> BytesCodec {
        BytesCodec
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(message.len());
        out.put(message);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let len = message.remaining();
        Ok(Some(message.copy_to_bytes(len)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use futures::future::join_all;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use tokio::runtime::Runtime;

    use super::*;

    const WAIT: Duration = Duration::from_secs(20);

    fn transport(listener: TcpListener) -> GrpcTransport {
        transport_with(listener, None)
    }

    fn transport_with(listener: TcpListener, tls: Option<TlsMaterial>) -> GrpcTransport {
        GrpcTransport::new(listener, Handle::current(), Handle::current(), tls)
    }

    /// A certificate for a node, signed by an authority of its own.
    fn material() -> TlsMaterial {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let signed = authority.self_signed(&key).unwrap();
        let (issuer, own) = (Issuer::new(authority, key), KeyPair::generate().unwrap());
        let node = CertificateParams::new(vec![CERTIFICATE_NAME.to_owned()]).unwrap();
        let certificate = node.signed_by(&own, &issuer).unwrap().pem();
        TlsMaterial { authority: signed.pem(), certificate, key: own.serialize_pem() }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn both_sides_tell_why_a_node_is_not_let_in() {
        let (known, other) = (material(), material());
        // What they have: who serves, and who calls.
        for (serves, calls, told_there, told_here) in [
            (Some(&known), Some(&known), None, None),
            (None, None, None, None),
            (Some(&known), None, Some("it shows no certificate"), Some("it may want to see a certificate")),
            (None, Some(&known), Some("it wants to see a certificate"), Some("it may have no certificates")),
            (Some(&known), Some(&other), Some("different authorities"), Some("different authorities")),
        ] {
            let listener = || async { TcpListener::bind("127.0.0.1:0").await.unwrap() };
            let (there, here) = (listener().await, listener().await);
            let (address, own) = (there.local_addr().unwrap(), Ipv4Addr::LOCALHOST.into());
            let there = transport_with(there, serves.cloned());
            there.serve(Door::default()).await;
            let here = transport_with(here, calls.cloned());
            for _ in 0..3 {
                let answer = ask(&here, address, 7).await;
                match told_here {
                    None => answer.unwrap(),
                    Some(expected) => {
                        let said = answer.unwrap_err().to_string();
                        assert!(said.contains(expected), "{said}");
                    }
                }
            }
            let told = there.refusals.of(own);
            assert_eq!(told.is_empty(), told_there.is_none(), "{told:?}");
            assert!(told.iter().all(|told| told.contains(told_there.unwrap_or_default())), "{told:?}");
        }
    }

    /// Serves a node that has not started, on threads that end with it.
    fn server(address: SocketAddr) -> (Runtime, SocketAddr) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let bound = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(address).unwrap();
            let listener = socket.listen(16).unwrap();
            let bound = listener.local_addr().unwrap();
            let transport = transport(listener);
            transport.serve(Door::default()).await;
            // It serves as long as the runtime is there.
            std::mem::forget(transport);
            bound
        });
        (runtime, bound)
    }

    /// A node says of a message of an unknown version which one that is.
    async fn ask(transport: &GrpcTransport, to: SocketAddr, version: u8) -> Result<(), TransportError> {
        let message = Bytes::from(vec![version]);
        let answer = transport.call(&to.to_string(), Lane::Log, message, WAIT).await?;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains(&format!("message version {version} is not known")), "{text}");
        Ok(())
    }

    #[test]
    fn calls_get_their_own_answers_over_one_stream_that_is_opened_again_when_it_was_lost() {
        let here = Runtime::new().unwrap();
        let (runtime, address) = server("127.0.0.1:0".parse().unwrap());
        let transport = here.block_on(async { transport(TcpListener::bind("127.0.0.1:0").await.unwrap()) });
        let all = |from: u8| join_all((from..from + 100).map(|version| ask(&transport, address, version)));
        let line = || here.block_on(transport.line(&address.to_string(), Lane::Log));
        assert!(here.block_on(all(3)).iter().all(Result::is_ok));
        let first = line().unwrap();
        assert!(here.block_on(all(100)).iter().all(Result::is_ok));
        assert!(Arc::ptr_eq(&first, &line().unwrap()));

        runtime.shutdown_timeout(WAIT);
        while first.is_open() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let nobody = here.block_on(all(3));
        let unreachable = |answer: &Result<(), _>| matches!(answer, Err(TransportError::Unreachable { .. }));
        assert!(nobody.iter().all(unreachable), "{nobody:?}");

        let (_runtime, _) = server(address);
        assert!(here.block_on(all(3)).iter().all(Result::is_ok));
        assert!(!Arc::ptr_eq(&first, &line().unwrap()));
    }
}
