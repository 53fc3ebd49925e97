//! Connections that others open: whether they speak as this node does, and what is told of those that do not.
//!
//! A node without certificates, or with those of another authority, is turned away before it can say who it is. Both sides tell why, so
//! that whoever set them up need not guess.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, future};
use parking_lot::Mutex;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::TcpIncoming;

use super::TlsMaterial;

/// How long a connection may take until it is one.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that come about at the same time.
const HANDSHAKES_MAX: usize = 256;
/// What a client of TLS sends first.
const TLS_HANDSHAKE: u8 = 22;
/// What a client of TLS says first is shorter.
const GREETING_BYTES_MAX: usize = 4096;
/// An address that keeps trying for one reason is told of once in this time.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// Addresses and reasons that are remembered.
const REASONS_MAX: usize = 1024;

/// How libraries word that the other side has ended a connection which was not one yet. Which of them it is depends on who was faster.
const BREAKS: [&str; 6] =
    ["handshake eof", "InvalidContentType", "h2 protocol error", "onnection reset", "connection closed", "broken pipe"];

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What has been told of connections that were refused.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    told: Mutex<BTreeMap<(IpAddr, String), Instant>>,
}

impl Refusals {
    fn tell(&self, peer: SocketAddr, reason: String) {
        let (now, address) = (Instant::now(), peer.ip());
        {
            let mut told = self.told.lock();
            told.retain(|_, at| now.duration_since(*at) < TOLD_EVERY);
            let key = (address, reason.clone());
            if told.len() >= REASONS_MAX || told.contains_key(&key) {
                return;
            }
            told.insert(key, now);
        }
        tracing::warn!(peer = %address, reason, "a connection from another node is refused");
    }

    /// What was told of an address.
    #[cfg(test)]
    pub(super) fn of(&self, address: IpAddr) -> Vec<String> {
        self.told.lock().keys().filter(|(of, _)| *of == address).map(|(_, reason)| reason.clone()).collect()
    }
}

/// What takes connections that prove who they are.
///
/// # Errors
/// When the certificates or the key cannot be read, or do not belong together.
pub(super) fn acceptor(tls: &TlsMaterial) -> Result<TlsAcceptor, Error> {
    let certificates = |pem: &str| CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let mut roots = RootCertStore::empty();
    for root in certificates(&tls.authority)? {
        roots.add(root)?;
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_client_cert_verifier(verifier);
    let key = PrivateKeyDer::from_pem_slice(tls.key.as_bytes())?;
    let mut config = config.with_single_cert(certificates(&tls.certificate)?, key)?;
    config.alpn_protocols.push(b"h2".to_vec());
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Connections without TLS.
pub(super) fn plain(
    incoming: TcpIncoming,
    refusals: Arc<Refusals>,
) -> impl Stream<Item = io::Result<TcpStream>> + Send + 'static {
    let admit = move |arrived: io::Result<TcpStream>| {
        let refusals = Arc::clone(&refusals);
        async move {
            let stream = match arrived {
                Ok(stream) => stream,
                Err(error) => return Some(Err(error)),
            };
            match first_byte(&stream).await? {
                TLS_HANDSHAKE => {
                    let reason = "it wants to see a certificate, and this node has none";
                    refusals.tell(stream.peer_addr().ok()?, reason.to_owned());
                    // What is not read when a connection is closed makes it one that broke.
                    let _greeting = stream.try_read(&mut [0; GREETING_BYTES_MAX]);
                    None
                }
                _ => Some(Ok(stream)),
            }
        }
    };
    incoming.map(admit).buffer_unordered(HANDSHAKES_MAX).filter_map(future::ready)
}

/// Connections with TLS, both sides of which have shown certificates of the authority.
pub(super) fn encrypted(
    incoming: TcpIncoming,
    acceptor: TlsAcceptor,
    refusals: Arc<Refusals>,
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> + Send + 'static {
    let admit = move |arrived: io::Result<TcpStream>| {
        let (acceptor, refusals) = (acceptor.clone(), Arc::clone(&refusals));
        async move {
            let stream = match arrived {
                Ok(stream) => stream,
                Err(error) => return Some(Err(error)),
            };
            let peer = stream.peer_addr().ok()?;
            let has_tls = first_byte(&stream).await? == TLS_HANDSHAKE;
            // One who speaks without TLS is answered in TLS as well: it learns that there is somebody.
            let reason = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => return Some(Ok(stream)),
                _ if !has_tls => "it shows no certificate".to_owned(),
                Ok(Err(error)) => explained(error.to_string(), true),
                Err(_) => "it does not go on with TLS".to_owned(),
            };
            refusals.tell(peer, reason);
            None
        }
    };
    incoming.map(admit).buffer_unordered(HANDSHAKES_MAX).filter_map(future::ready)
}

/// What comes first on a connection; `None` when nothing does, of which there is nothing to tell.
async fn first_byte(stream: &TcpStream) -> Option<u8> {
    let mut byte = [0];
    match timeout(HANDSHAKE_TIMEOUT, stream.peek(&mut byte)).await {
        Ok(Ok(1)) => Some(byte[0]),
        _ => None,
    }
}

/// Why two nodes do not come together that never have, in words of whoever set both up.
pub(super) fn explained(reason: String, has_certificates: bool) -> String {
    let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    let cause = if says(&["UnknownIssuer", "BadSignature", "UnknownCA", "DecryptError"]) {
        "its certificate and that of this node are signed by different authorities"
    } else if says(&BREAKS) {
        match has_certificates {
            true => "it may have no certificates",
            false => "it may want to see a certificate, and this node has none",
        }
    } else {
        return reason;
    };
    format!("{cause} ({reason})")
}
