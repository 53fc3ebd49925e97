//! Files that hold one JSON body behind a binary header: checkpoints and other small state.
//!
//! Header: magic 8 bytes, version u16, zero u16, body length u32, CRC-32C u32 of all other bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

const HEADER_BYTES: usize = 20;

/// The header and `body` as JSON.
pub fn encode_document<T: Serialize>(magic: &[u8; 8], version: u16, body: &T) -> Result<Vec<u8>, Error> {
    let body = serde_json::to_vec(body).map_err(|error| refuse(error.to_string()))?;
    let len = u32::try_from(body.len()).map_err(|_| refuse("longer than 4 GiB".to_owned()))?;
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
    out.extend_from_slice(magic);
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&len.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&out), &body);
    out.extend_from_slice(&checksum.to_le_bytes());
    assert_eq!(out.len(), HEADER_BYTES, "the header has a fixed size");
    out.extend_from_slice(&body);
    Ok(out)
}

/// The reverse of [`encode_document`]: checks magic, version, length and checksum.
pub fn decode_document<T: DeserializeOwned>(magic: &[u8; 8], version: u16, bytes: &[u8]) -> Result<T, Error> {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(refuse(format!("{} bytes are too few", bytes.len())));
    };
    if header[..8] != magic[..] {
        return Err(refuse("it is another kind of file".to_owned()));
    }
    let found = u16::from_le_bytes([header[8], header[9]]);
    if found != version {
        return Err(refuse(format!("version {found} is not known")));
    }
    let len = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
    if len as usize != body.len() {
        return Err(refuse(format!("{len} bytes expected, {} there", body.len())));
    }
    let checksum = u32::from_le_bytes([header[16], header[17], header[18], header[19]]);
    if checksum != crc32c::crc32c_append(crc32c::crc32c(&header[..16]), body) {
        return Err(refuse("checksum does not match".to_owned()));
    }
    serde_json::from_slice(body).map_err(|error| refuse(error.to_string()))
}

fn refuse(reason: String) -> Error {
    Error::Decode { what: "document", reason }
}
