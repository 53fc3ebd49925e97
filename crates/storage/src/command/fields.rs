//! Reading and writing little-endian fields. Every read is bounded: bytes that end too early give an error.

use crate::Error;

/// Cuts fields off the front of a byte slice.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Fields of `rest`; `what` names the whole in errors.
    pub(super) fn new(what: &'static str, rest: &'a [u8]) -> Self {
        Self { what, rest }
    }

    /// The next `len` bytes.
    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let Some((head, tail)) = self.rest.split_at_checked(len) else {
            return Err(Error::Decode {
                what: self.what,
                reason: format!("{len} bytes expected, {} left", self.rest.len()),
            });
        };
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        Ok(self.bytes(N)?.try_into().expect("a slice of N bytes is an array of N bytes"))
    }

    /// The next byte.
    pub(super) fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    /// The next two bytes.
    pub(super) fn u16(&mut self) -> Result<u16, Error> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// The next four bytes.
    pub(super) fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// The next eight bytes.
    pub(super) fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// The next eight bytes, signed.
    pub(super) fn i64(&mut self) -> Result<i64, Error> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A u32 length and that many bytes.
    pub(super) fn sized(&mut self) -> Result<&'a [u8], Error> {
        let len = self.u32()?;
        self.bytes(len as usize)
    }

    /// Bytes not yet read.
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    /// Fails unless everything was read.
    pub(super) fn finish(self) -> Result<(), Error> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(Error::Decode { what: self.what, reason: format!("{left} bytes too many") }),
        }
    }
}

/// A length as u32.
pub(super) fn len_u32(len: usize) -> Result<u32, Error> {
    u32::try_from(len).map_err(|_| Error::Columns(format!("{len} bytes or rows do not fit into one entry")))
}

/// Appends a u32 length and the bytes.
pub(super) fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Error> {
    out.extend_from_slice(&len_u32(bytes.len())?.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Appends zeros up to the next multiple of 8.
pub(super) fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(8), 0);
}
