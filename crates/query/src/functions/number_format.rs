//! `to_char(number, format)`: digits, groups, sign, rounding as PostgreSQL's patterns say. [`super::to_number`] reads by the same formats.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};
use datafusion::common::Result;

use super::refused;
use crate::error::Condition;

/// Digits a format may have, as in PostgreSQL's float8.
const DIGITS_MAX: usize = 300;

/// Whether it is a number's type.
pub(super) fn is_number(data_type: &DataType) -> bool {
    data_type.is_integer() || data_type.is_floating() || matches!(data_type, DataType::Decimal128(..))
}

/// Formats each of `numbers` by the format beside it.
pub(super) fn format_all(numbers: &ArrayRef, formats: &ArrayRef) -> Result<ArrayRef> {
    let formats = cast(formats, &DataType::Utf8)?;
    let formats = formats.as_string::<i32>();
    let mut texts = StringBuilder::new();
    let mut known: Option<(&str, Format)> = None;
    let digits = digits_of(numbers)?;
    for row in 0..numbers.len() {
        if numbers.is_null(row) || formats.is_null(row) {
            texts.append_null();
            continue;
        }
        let text = formats.value(row);
        let format = match known.take() {
            Some((of, format)) if of == text => format,
            _ => Format::parse(text)?,
        };
        texts.append_value(format.apply(&digits(row, format.behind)));
        known = Some((text, format));
    }
    Ok(Arc::new(texts.finish()))
}

/// A number rounded to so many digits behind the point.
struct Rounded {
    negative: bool,
    /// Digits before the point, without leading zeros but for a lone one.
    before: String,
    /// Digits behind the point.
    behind: String,
}

impl Rounded {
    /// Of a number as it is written; an infinite one has more digits than any format.
    fn of(text: &str) -> Rounded {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
        let (before, behind) = text.split_once('.').unwrap_or((text, ""));
        let before = if before == "inf" { "9".repeat(DIGITS_MAX + 1) } else { before.to_owned() };
        Rounded { negative, before, behind: behind.to_owned() }
    }

    fn is_nan(&self) -> bool {
        self.before == "NaN"
    }
}

type Digits<'a> = Box<dyn Fn(usize, usize) -> Rounded + 'a>;

/// What rounds the number of a row.
fn digits_of(numbers: &ArrayRef) -> Result<Digits<'_>> {
    match numbers.data_type() {
        DataType::Decimal128(_, scale) => {
            let scale = usize::try_from(*scale).unwrap_or(0);
            let numbers = numbers.as_primitive::<Decimal128Type>();
            Ok(Box::new(move |row, behind| Rounded::of(&decimal(numbers.value(row), scale, behind))))
        }
        data_type if data_type.is_integer() => {
            let numbers = cast(numbers, &DataType::Int64)?;
            let numbers = numbers.as_primitive::<Int64Type>().clone();
            Ok(Box::new(move |row, behind| Rounded::of(&decimal(i128::from(numbers.value(row)), 0, behind))))
        }
        _ => {
            let numbers = cast(numbers, &DataType::Float64)?;
            let numbers = numbers.as_primitive::<Float64Type>().clone();
            Ok(Box::new(move |row, behind| Rounded::of(&format!("{:.behind$}", numbers.value(row)))))
        }
    }
}

/// A decimal as text with so many digits behind the point, rounded away from zero at the half.
fn decimal(value: i128, scale: usize, behind: usize) -> String {
    let (mut digits, mut scale) = (value.unsigned_abs(), scale);
    if scale > behind {
        // A scale is at most 38, and so fits the power.
        let unit = 10_u128.pow(u32::try_from(scale - behind).unwrap_or(u32::MAX).min(38));
        digits = digits / unit + u128::from(digits % unit >= unit / 2);
        scale = behind;
    }
    let mut text = format!("{digits:0>width$}", width = scale + 1);
    let point = text.len() - scale;
    text.insert(point, '.');
    text.extend(std::iter::repeat_n('0', behind - scale));
    let text = text.trim_end_matches('.');
    // A decimal has no negative zero, where a double has.
    if value < 0 && digits > 0 { format!("-{text}") } else { text.to_owned() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// `9`, or `0` when zeros are shown.
    Digit {
        zero: bool,
    },
    Point,
    Group,
    Sign,
    /// `MI`: a minus or a blank.
    Minus,
    Literal(char),
}

/// Who shows the sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signed {
    /// A place before the first digit.
    Place,
    /// `S` before the digits.
    Before,
    /// `S` or `MI` where they stand.
    There,
    /// `PR`: in angle brackets.
    Brackets,
}

#[derive(Debug)]
pub(super) struct Format {
    pub(super) nodes: Vec<Node>,
    before: usize,
    /// Digits behind the point.
    pub(super) behind: usize,
    fill: bool,
    pub(super) signed: Signed,
}

impl Format {
    pub(super) fn parse(text: &str) -> Result<Format> {
        let mut format = Format { nodes: Vec::new(), before: 0, behind: 0, fill: true, signed: Signed::Place };
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let pair = rest.get(..2).unwrap_or_default().to_uppercase();
            let mut taken = first.len_utf8();
            let has_point = format.nodes.contains(&Node::Point);
            match (pair.as_str(), first) {
                ("FM", _) => (format.fill, taken) = (false, 2),
                ("MI", _) => {
                    format.sign(Signed::There)?;
                    format.nodes.push(Node::Minus);
                    taken = 2;
                }
                ("PR", _) => {
                    format.sign(Signed::Brackets)?;
                    taken = 2;
                }
                (_, 'S' | 's') if pair != "SG" => {
                    let leads = format.before + format.behind == 0 && !has_point;
                    format.sign(if leads { Signed::Before } else { Signed::There })?;
                    if !leads {
                        format.nodes.push(Node::Sign);
                    }
                }
                (_, '9' | '0') => {
                    if has_point {
                        format.behind += 1
                    } else {
                        format.before += 1
                    }
                    format.nodes.push(Node::Digit { zero: first == '0' });
                }
                (_, '.' | 'D' | 'd') if has_point => {
                    return Err(refused(Condition::SyntaxError, "multiple decimal points"));
                }
                (_, '.' | 'D' | 'd') => format.nodes.push(Node::Point),
                (_, ',' | 'G' | 'g') => format.nodes.push(Node::Group),
                (_, '"') => {
                    let quoted = &rest[1..];
                    let end = quoted.find('"').unwrap_or(quoted.len());
                    format.nodes.extend(quoted[..end].chars().map(Node::Literal));
                    taken = (end + 2).min(rest.len());
                }
                (_, letter) if letter.is_ascii_alphabetic() => {
                    let message = format!("the pattern \"{pair}\" of to_char is not supported for numbers");
                    return Err(refused(Condition::FeatureNotSupported, &message));
                }
                (_, other) => format.nodes.push(Node::Literal(other)),
            }
            rest = &rest[taken..];
        }
        if format.before + format.behind > DIGITS_MAX {
            return Err(refused(Condition::ProgramLimitExceeded, "the format of to_char has too many digits"));
        }
        Ok(format)
    }

    fn sign(&mut self, signed: Signed) -> Result<()> {
        if self.signed != Signed::Place {
            return Err(refused(Condition::SyntaxError, "cannot use \"S\", \"MI\" and \"PR\" together"));
        }
        self.signed = signed;
        Ok(())
    }

    fn apply(&self, number: &Rounded) -> String {
        let mut digits: Vec<char> = number.before.chars().collect();
        let zero_from = self.nodes_before().position(|zero| zero).unwrap_or(self.before);
        // A lone zero before the point is shown by `0` only, unless it is all there is, or has no place at all.
        if number.before == "0" && self.behind > 0 && zero_from == self.before && self.before > 0 {
            digits.clear();
        }
        let overflows = digits.len() > self.before;
        let blank = self.before.saturating_sub(digits.len());
        let shown_behind = self.shown_behind(number);
        let mut out = Out { text: String::new(), signed: false, format: self, negative: number.negative };
        let (mut at, mut at_behind) = (0, 0);
        let mut behind_point = false;
        for node in &self.nodes {
            if number.is_nan() && *node == Node::Point {
                break;
            }
            match node {
                Node::Digit { .. } if behind_point => {
                    if at_behind < shown_behind {
                        let digit = number.behind.chars().nth(at_behind).unwrap_or('0');
                        out.digit(if overflows { '#' } else { digit });
                    }
                    at_behind += 1;
                }
                Node::Digit { .. } => {
                    match (overflows, at < blank) {
                        (true, _) => out.digit('#'),
                        (false, true) if at >= zero_from => out.digit('0'),
                        (false, true) => out.blank(),
                        (false, false) => out.digit(digits[at - blank]),
                    }
                    at += 1;
                }
                Node::Point => {
                    out.digit('.');
                    behind_point = true;
                }
                Node::Group if out.signed || at > zero_from => out.text.push(','),
                Node::Group => out.blank(),
                Node::Sign => out.text.push(if number.negative { '-' } else { '+' }),
                Node::Minus if number.negative => out.text.push('-'),
                Node::Minus => out.blank(),
                Node::Literal(literal) => out.text.push(*literal),
            }
        }
        if self.signed == Signed::Brackets {
            if number.negative { out.text.push('>') } else { out.blank() }
        }
        out.text
    }

    /// Of each digit before the point, whether it is a `0`.
    fn nodes_before(&self) -> impl Iterator<Item = bool> {
        let before = self.nodes.iter().take_while(|node| **node != Node::Point);
        before.filter_map(|node| match node {
            Node::Digit { zero } => Some(*zero),
            _ => None,
        })
    }

    /// How many digits behind the point are shown: without fill none of the zeros at the end, unless the format has a `0` there.
    fn shown_behind(&self, number: &Rounded) -> usize {
        if self.fill {
            return self.behind;
        }
        let behind = self.nodes.iter().skip_while(|node| **node != Node::Point);
        let zeros = behind.filter_map(|node| match node {
            Node::Digit { zero } => Some(*zero),
            _ => None,
        });
        let wanted = zeros.enumerate().filter(|(_, zero)| *zero).map(|(at, _)| at + 1).last().unwrap_or(0);
        number.behind.trim_end_matches('0').len().max(wanted)
    }
}

/// A number being written.
struct Out<'a> {
    text: String,
    /// Whether the place before the first digit is written.
    signed: bool,
    format: &'a Format,
    negative: bool,
}

impl Out<'_> {
    fn digit(&mut self, digit: char) {
        if !std::mem::replace(&mut self.signed, true) {
            match (self.format.signed, self.negative) {
                (Signed::Place | Signed::Before, true) => self.text.push('-'),
                (Signed::Before, false) => self.text.push('+'),
                (Signed::Brackets, true) => self.text.push('<'),
                (Signed::Place | Signed::Brackets, false) => self.blank(),
                (Signed::There, _) => {}
            }
        }
        self.text.push(digit);
    }

    fn blank(&mut self) {
        if self.format.fill {
            self.text.push(' ');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers are PostgreSQL's.
    #[test]
    fn numbers_are_formatted_as_postgresql_does() -> Result<()> {
        for (number, format, expected) in [
            ("-0.1", "99.99", "  -.10"),
            ("-0.1", "FM9.99", "-.1"),
            ("0.1", "0.9", " 0.1"),
            ("12", "9990999.9", "    0012.0"),
            ("12", "FM9990999.9", "0012."),
            ("485", "999", " 485"),
            ("-485", "999", "-485"),
            ("485", "9 9 9", " 4 8 5"),
            ("1485", "9,999", " 1,485"),
            ("148.5", "999.999", " 148.500"),
            ("148.5", "FM999.999", "148.5"),
            ("148.5", "FM999.990", "148.500"),
            ("3148.5", "9G999D999", " 3,148.500"),
            ("-485", "999S", "485-"),
            ("-485", "999MI", "485-"),
            ("485", "999MI", "485 "),
            ("485", "FM999MI", "485"),
            ("485", "999PR", " 485 "),
            ("-485", "999PR", "<485>"),
            ("485", "\"Good number:\"999", "Good number: 485"),
            ("12", "S9999", "  +12"),
            ("1234", "999", " ###"),
            ("0", "999", "   0"),
            ("12", "9,999", "    12"),
            ("12", "0,000", " 0,012"),
            ("-0.001", "9.99", "  .00"),
            ("0.1", ".99", " .##"),
            ("-7", "MI99", "- 7"),
        ] {
            let format = Format::parse(format)?;
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            let value: i128 = format!("{whole}{fraction}").parse().expect("a number");
            let value = if number.starts_with('-') { -value.abs() } else { value };
            let rounded = Rounded::of(&decimal(value, fraction.len(), format.behind));
            assert_eq!(format.apply(&rounded), expected, "{number}");
        }
        Ok(())
    }

    #[test]
    fn doubles_keep_their_sign_and_have_no_digits_when_they_are_no_numbers() -> Result<()> {
        for (number, format, expected) in [
            (-0.001, "9.99", " -.00"),
            (0.5, "FM999", "0"),
            (f64::NAN, "999.99", " NaN"),
            (f64::INFINITY, "FM999", "###"),
            (f64::NEG_INFINITY, "999.9", "-###.#"),
            (1e20, "999", " ###"),
        ] {
            let format = Format::parse(format)?;
            let text = format!("{number:.behind$}", behind = format.behind);
            assert_eq!(format.apply(&Rounded::of(&text)), expected, "{number}");
        }
        Ok(())
    }

    #[test]
    fn decimals_are_rounded_away_from_zero() {
        for (value, scale, behind, expected) in [
            (125, 2, 1, "1.3"),
            (-125, 2, 1, "-1.3"),
            (5, 1, 0, "1"),
            (4, 1, 0, "0"),
            (7, 0, 2, "7.00"),
            (999, 2, 1, "10.0"),
        ] {
            assert_eq!(decimal(value, scale, behind), expected);
        }
    }
}
