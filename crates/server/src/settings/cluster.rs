//! The node's place among others.

use std::net::SocketAddr;
use std::path::PathBuf;

use cluster::JoinToken;

use super::{Overrides, SettingsError, address, file};

/// How the node is reached by others, and whom it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Where other nodes connect.
    pub listen: SocketAddr,
    /// Where they are told to connect, when that is another address.
    pub address: Option<String>,
    /// Nodes of the cluster that an empty data directory shall belong to.
    pub join: Vec<String>,
    /// The id that the node must have.
    pub node_id: Option<u64>,
    /// What nodes prove to each other who they are with.
    pub certificates: Option<Certificates>,
    /// The token that an empty data directory joins with.
    pub join_token: Option<JoinToken>,
}

impl Cluster {
    /// Whether a node that wants to join must have a token: when any machine can reach this one, and nothing else tells nodes from strangers.
    pub fn demands_tokens(&self) -> bool {
        self.certificates.is_none() && !self.listen.ip().is_loopback()
    }
}

/// Files in PEM, as `annal cert` makes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// The certificate of the authority that signs nodes.
    pub authority: PathBuf,
    /// This node's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Cluster {
    /// Lays the flags over the table `[cluster]`. `None` when neither says where to listen.
    pub(super) fn resolve(
        file: file::Cluster,
        overrides: &Overrides,
        insecure: bool,
    ) -> Result<Option<Cluster>, SettingsError> {
        let join = if overrides.join.is_empty() { file.join.unwrap_or_default() } else { overrides.join.clone() };
        for seed in &join {
            check_place("cluster.join", seed)?;
        }
        let certificates = match (file.authority, file.certificate, file.key) {
            (None, None, None) => None,
            (Some(authority), Some(certificate), Some(key)) => {
                Some(Certificates { authority: authority.into(), certificate: certificate.into(), key: key.into() })
            }
            _ => {
                let message = "\"cluster.authority\", \"cluster.certificate\" and \"cluster.key\" belong together";
                return Err(SettingsError::new(message).with_hint("annal cert makes all three"));
            }
        };
        let Some(listen) = overrides.cluster_listen.clone().or(file.listen) else {
            if !join.is_empty() {
                let error = SettingsError::new("a node that joins others must be reached by them");
                return Err(error.with_hint("say --cluster-listen ADDRESS"));
            }
            if let Some(node) = overrides.node_id.filter(|node| *node != 1) {
                let error = SettingsError::new(format!("a node that is alone is node 1, not node {node}"));
                return Err(error.with_hint("say --cluster-listen ADDRESS and --join HOST:PORT for one of several"));
            }
            return Ok(None);
        };
        let listen = address("cluster.listen", &listen)?;
        if !listen.ip().is_loopback() && certificates.is_none() && !insecure {
            let message = format!(
                "\"cluster.listen\" is {listen}, which other machines can reach, and nodes have no certificates"
            );
            let hint = "annal cert makes them; or say --insecure if the network itself keeps strangers out";
            return Err(SettingsError::new(message).with_hint(hint));
        }
        let advertised = overrides.cluster_address.clone().or(file.address);
        if let Some(advertised) = &advertised {
            check_place("cluster.address", advertised)?;
        } else if listen.ip().is_unspecified() {
            let error = SettingsError::new(format!("\"cluster.listen\" is {listen}, an address nobody can connect to"));
            return Err(error.with_hint("say --cluster-address HOST:PORT, where other nodes find this one"));
        }
        let (node_id, join_token) = (overrides.node_id, overrides.join_token.clone());
        Ok(Some(Cluster { listen, address: advertised, join, node_id, certificates, join_token }))
    }
}

/// A host, by name or address, with a port.
fn check_place(key: &str, text: &str) -> Result<(), SettingsError> {
    let sound = text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if sound {
        return Ok(());
    }
    let error = SettingsError::new(format!("\"{key}\" must be a host with a port, not \"{text}\""));
    Err(error.with_hint("for example 10.0.0.7:6532"))
}
