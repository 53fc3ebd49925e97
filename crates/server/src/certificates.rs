//! Certificates of nodes: `annal cert` makes an authority and what it signs, and a node reads its own.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cluster::grpc::{CERTIFICATE_NAME, TlsMaterial};
use event::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::error::Error;
use crate::settings::Certificates;

const AUTHORITY_CERTIFICATE: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority-key.pem";
const NODE_CERTIFICATE: &str = "node.pem";
const NODE_KEY: &str = "node-key.pem";

/// Reads what the settings name.
pub(crate) fn read(files: &Certificates) -> Result<TlsMaterial, Error> {
    let text = |path: &Path| {
        fs::read_to_string(path)
            .map_err(|source| Error::Certificate { path: path.display().to_string(), source: source.into() })
    };
    Ok(TlsMaterial {
        authority: text(&files.authority)?,
        certificate: text(&files.certificate)?,
        key: text(&files.key)?,
    })
}

/// Runs `annal cert`.
pub(crate) fn run(dir: &Path, nodes: &[String]) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    for made in make(dir, nodes)? {
        let file = |name: &str| made.join(name).display().to_string();
        // A reader that went away ends nothing.
        let _gone = writeln!(
            out,
            "# {}\n[cluster]\nauthority = {:?}\ncertificate = {:?}\nkey = {:?}",
            made.display(),
            file(AUTHORITY_CERTIFICATE),
            file(NODE_CERTIFICATE),
            file(NODE_KEY),
        );
    }
    Ok(())
}

/// Makes the authority in `dir` when there is none yet, and a certificate for each of `nodes` in a directory of that name.
fn make(dir: &Path, nodes: &[String]) -> Result<Vec<PathBuf>, Error> {
    create_dir(dir)?;
    let authority = authority(dir)?;
    let mut made = Vec::new();
    for node in nodes {
        let own = dir.join(node);
        create_dir(&own)?;
        let key = KeyPair::generate().map_err(|e| failed(&own, e))?;
        let mut params = CertificateParams::new(names(node)).map_err(|e| failed(&own, e))?;
        params.distinguished_name.push(DnType::CommonName, node.as_str());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &authority).map_err(|e| failed(&own, e))?;
        write(&own.join(NODE_KEY), &key.serialize_pem(), SECRET)?;
        write(&own.join(NODE_CERTIFICATE), &certificate.pem(), PUBLIC)?;
        fs::copy(dir.join(AUTHORITY_CERTIFICATE), own.join(AUTHORITY_CERTIFICATE)).map_err(|e| failed(&own, e))?;
        made.push(own);
    }
    Ok(made)
}

/// What the certificate says of a node. A number for a name binds it to the node of that id.
fn names(node: &str) -> Vec<String> {
    let bound = node.parse().into_iter().flat_map(|id| cluster::binding_names(NodeId(id)));
    std::iter::once(CERTIFICATE_NAME.to_owned()).chain(bound).collect()
}

const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// The authority of the directory; made when it is not there.
fn authority(dir: &Path) -> Result<Issuer<'static, KeyPair>, Error> {
    let (certificate_path, key_path) = (dir.join(AUTHORITY_CERTIFICATE), dir.join(AUTHORITY_KEY));
    let parameters = || {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Annal cluster authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    };
    if key_path.exists() {
        let key = fs::read_to_string(&key_path).map_err(|e| failed(&key_path, e))?;
        let key = KeyPair::from_pem(&key).map_err(|e| failed(&key_path, e))?;
        return Ok(Issuer::new(parameters(), key));
    }
    let key = KeyPair::generate().map_err(|e| failed(&key_path, e))?;
    let certificate = parameters().self_signed(&key).map_err(|e| failed(&certificate_path, e))?;
    write(&key_path, &key.serialize_pem(), SECRET)?;
    write(&certificate_path, &certificate.pem(), PUBLIC)?;
    Ok(Issuer::new(parameters(), key))
}

fn create_dir(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|e| failed(dir, e))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|e| failed(path, e))
}

fn failed(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Certificate { path: path.display().to_string(), source: source.into() }
}
