//! What the other side of a connection has proven: which nodes it may speak for.
//!
//! That its certificate is signed by the cluster's authority TLS has seen to. A certificate may also be bound to one node, and then nobody
//! speaks with it in the name of another. One that is bound to none, and a connection without TLS, say nothing.

use event::NodeId;
use rustls_pki_types::{CertificateDer, ServerName};
use webpki::EndEntityCert;

/// A name that every certificate has which is bound to a node.
const BOUND_NAME: &str = "annal-node-bound";

/// The names that bind a certificate to a node, for whoever makes it.
pub fn binding_names(node: NodeId) -> [String; 2] {
    [BOUND_NAME.to_owned(), format!("annal-node-{node}")]
}

/// What one connection has proven. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    certificate: Option<CertificateDer<'static>>,
}

impl Proof {
    /// Of a connection that shows this certificate, which was verified.
    pub fn of(certificate: CertificateDer<'static>) -> Proof {
        Proof { certificate: Some(certificate) }
    }

    /// Whether the other side may speak for that node.
    pub(crate) fn allows(&self, node: NodeId) -> bool {
        let Some(der) = &self.certificate else { return true };
        // One that TLS has verified can be read.
        let Ok(certificate) = EndEntityCert::try_from(der) else { return false };
        let has = |name: &str| {
            let name = ServerName::try_from(name);
            name.is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
        };
        let [bound, own] = binding_names(node);
        !has(&bound) || has(&own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> Proof {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Proof::of(made.cert.der().clone())
    }

    #[test]
    fn a_bound_certificate_speaks_for_one_node_only() {
        let [bound, own] = binding_names(NodeId(3));
        let proof = certificate(&["annal-node", &bound, &own]);
        assert!(proof.allows(NodeId(3)));
        assert!(!proof.allows(NodeId(30)) && !proof.allows(NodeId(1)) && !proof.allows(NodeId(0)));
    }

    #[test]
    fn what_is_bound_to_none_speaks_for_all() {
        assert!(certificate(&["annal-node"]).allows(NodeId(7)));
        assert!(Proof::default().allows(NodeId(7)));
    }
}
