//! Where a record of COPY data ends, and what its fields are.

use crate::error::{Condition, Report};
use crate::session::{CopyFormat, CopyOptions};
use crate::text::{Refused, refused};

/// One field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// NULL.
    Null,
    /// Text, as the range of it in the scratch buffer.
    Text(std::ops::Range<usize>),
}

/// The fields of one record; reused from record to record.
#[derive(Debug, Default)]
pub(super) struct Fields {
    scratch: Vec<u8>,
    fields: Vec<Field>,
}

impl Fields {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    /// The bytes of field `at`, `None` for NULL.
    pub(super) fn get(&self, at: usize) -> Option<&[u8]> {
        match &self.fields[at] {
            Field::Null => None,
            Field::Text(range) => Some(&self.scratch[range.clone()]),
        }
    }

    /// Splits a record (without its line end).
    ///
    /// # Errors
    /// 22P04 for an unterminated quote.
    pub(super) fn split(&mut self, record: &[u8], options: &CopyOptions) -> Result<(), Refused> {
        self.scratch.clear();
        self.fields.clear();
        match options.format {
            CopyFormat::Text => {
                self.split_text(record, options);
                Ok(())
            }
            CopyFormat::Csv => self.split_csv(record, options),
        }
    }

    fn split_text(&mut self, record: &[u8], options: &CopyOptions) {
        let mut start = 0;
        loop {
            let end = text_field_end(record, start, options.delimiter);
            let raw = &record[start..end];
            if raw == options.null.as_bytes() {
                self.fields.push(Field::Null);
            } else {
                let from = self.scratch.len();
                unescape(raw, &mut self.scratch);
                self.fields.push(Field::Text(from..self.scratch.len()));
            }
            if end == record.len() {
                return;
            }
            start = end + 1;
        }
    }

    fn split_csv(&mut self, record: &[u8], options: &CopyOptions) -> Result<(), Refused> {
        let mut at = 0;
        loop {
            let from = self.scratch.len();
            let mut quoted = false;
            let mut inside = false;
            while at < record.len() {
                let byte = record[at];
                if inside {
                    let next = record.get(at + 1);
                    if byte == options.escape && next.is_some_and(|n| *n == options.quote || *n == options.escape) {
                        self.scratch.push(record[at + 1]);
                        at += 2;
                        continue;
                    }
                    if byte == options.quote {
                        inside = false;
                    } else {
                        self.scratch.push(byte);
                    }
                } else if byte == options.delimiter {
                    break;
                } else if byte == options.quote {
                    quoted = true;
                    inside = true;
                } else {
                    self.scratch.push(byte);
                }
                at += 1;
            }
            if inside {
                return Err(unterminated());
            }
            let is_null = !quoted && self.scratch[from..] == *options.null.as_bytes();
            self.fields.push(if is_null { Field::Null } else { Field::Text(from..self.scratch.len()) });
            if at == record.len() {
                return Ok(());
            }
            at += 1;
        }
    }
}

fn unterminated() -> Box<Report> {
    refused(Condition::BadCopyFormat, "unterminated CSV quoted field".to_string())
}

fn text_field_end(record: &[u8], start: usize, delimiter: u8) -> usize {
    let mut at = start;
    while at < record.len() {
        match record[at] {
            b'\\' => at += 2,
            byte if byte == delimiter => return at,
            _ => at += 1,
        }
    }
    record.len()
}

/// Resolves the backslash sequences of the text format.
fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    if !raw.contains(&b'\\') {
        out.extend_from_slice(raw);
        return;
    }
    let mut at = 0;
    while at < raw.len() {
        let byte = raw[at];
        at += 1;
        if byte != b'\\' || at == raw.len() {
            out.push(byte);
            continue;
        }
        let code = raw[at];
        at += 1;
        match code {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'0'..=b'7' => {
                let mut value = u32::from(code - b'0');
                for _ in 0..2 {
                    let Some(digit) = raw.get(at).filter(|byte| (b'0'..=b'7').contains(byte)) else { break };
                    value = value * 8 + u32::from(digit - b'0');
                    at += 1;
                }
                out.push((value & 0xff) as u8);
            }
            b'x' if raw.get(at).is_some_and(u8::is_ascii_hexdigit) => {
                let mut value = 0;
                for _ in 0..2 {
                    let Some(digit) = raw.get(at).and_then(|byte| char::from(*byte).to_digit(16)) else { break };
                    value = value * 16 + digit;
                    at += 1;
                }
                out.push((value & 0xff) as u8);
            }
            other => out.push(other),
        }
    }
}

/// Finds the end of records in bytes that come in pieces.
#[derive(Debug, Default)]
pub(super) struct Boundary {
    /// Bytes of the unfinished record that were looked at already.
    seen: usize,
    quoted: bool,
    escaped: bool,
}

impl Boundary {
    /// The length of the first record of `bytes` including its line feed, `None` while its end has not come.
    /// `bytes` must begin where the last record ended and only grow between calls.
    pub(super) fn find(&mut self, bytes: &[u8], options: &CopyOptions) -> Option<usize> {
        while self.seen < bytes.len() {
            let byte = bytes[self.seen];
            self.seen += 1;
            match options.format {
                CopyFormat::Text => {
                    if self.escaped {
                        self.escaped = false;
                    } else if byte == b'\\' {
                        self.escaped = true;
                    } else if byte == b'\n' {
                        return Some(self.end());
                    }
                }
                CopyFormat::Csv => {
                    if self.escaped {
                        // What follows an escape inside quotes: a quote or an escape is data, anything else is looked at as usual.
                        self.escaped = false;
                        if byte == options.quote || byte == options.escape {
                            continue;
                        }
                    }
                    if self.quoted && byte == options.escape && options.escape != options.quote {
                        self.escaped = true;
                    } else if byte == options.quote {
                        // A doubled quote leaves and enters at once.
                        self.quoted = !self.quoted;
                    } else if byte == b'\n' && !self.quoted {
                        return Some(self.end());
                    }
                }
            }
        }
        None
    }

    fn end(&mut self) -> usize {
        std::mem::take(&mut self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(format: CopyFormat) -> CopyOptions {
        let csv = format == CopyFormat::Csv;
        CopyOptions {
            format,
            header: false,
            delimiter: if csv { b',' } else { b'\t' },
            null: if csv { String::new() } else { "\\N".to_string() },
            quote: b'"',
            escape: b'"',
        }
    }

    fn check(format: CopyFormat, record: &str, expected: &[Option<&str>]) {
        let mut fields = Fields::default();
        fields.split(record.as_bytes(), &options(format)).expect("well formed");
        let found: Vec<_> = (0..fields.len())
            .map(|at| fields.get(at).map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
            .collect();
        let expected: Vec<_> = expected.iter().map(|field| field.map(str::to_string)).collect();
        assert_eq!(found, expected, "{record:?}");
    }

    #[test]
    fn text_fields() {
        check(CopyFormat::Text, "a\t\\N\tb", &[Some("a"), None, Some("b")]);
        check(CopyFormat::Text, "", &[Some("")]);
        check(CopyFormat::Text, "a\\tb\\\\\\n\t\\101\\x42\\q", &[Some("a\tb\\\n"), Some("ABq")]);
        check(CopyFormat::Text, "\\\\N\tx", &[Some("\\N"), Some("x")]);
        check(CopyFormat::Text, "a\\\tb", &[Some("a\tb")]);
        check(CopyFormat::Text, "\t", &[Some(""), Some("")]);
    }

    #[test]
    fn csv_fields() {
        check(CopyFormat::Csv, "a,,\"\",b", &[Some("a"), None, Some(""), Some("b")]);
        check(CopyFormat::Csv, "\"a,\"\"b\"\"\nc\",d", &[Some("a,\"b\"\nc"), Some("d")]);
        check(CopyFormat::Csv, "a\"b,c\"d", &[Some("ab,cd")]);
        check(CopyFormat::Csv, "", &[None]);
        let mut fields = Fields::default();
        assert!(fields.split(b"\"a", &options(CopyFormat::Csv)).is_err());
    }

    #[test]
    fn boundaries() {
        let csv = options(CopyFormat::Csv);
        let mut boundary = Boundary::default();
        assert_eq!(boundary.find(b"a,\"x\n", &csv), None);
        assert_eq!(boundary.find(b"a,\"x\ny\"\"\"\nb", &csv), Some(10));
        assert_eq!(boundary.find(b"b\n", &csv), Some(2));
        let text = options(CopyFormat::Text);
        let mut boundary = Boundary::default();
        assert_eq!(boundary.find(b"a\\", &text), None);
        assert_eq!(boundary.find(b"a\\\nb\n", &text), Some(5));
    }
}
