//! PostgreSQL's advanced regular expressions, written anew for the `regex` crate: the same escapes, bracket expressions, options and
//! refusals.
//!
//! Two things stay different. Of several alternatives the first that fits is taken, where PostgreSQL takes the one that matches most. And
//! what would make matching take more than linear time is refused: references back to a group, and looking around.

use std::iter::Peekable;
use std::str::Chars;

use datafusion::common::{DataFusionError, Result};
use regex::{Regex, RegexBuilder};

use crate::error::{Condition, Error};

/// The most that a bound may say, as in PostgreSQL.
const BOUND_MAX: u32 = 255;
/// The classes of characters that may stand in brackets.
const CLASSES: [&str; 13] = [
    "alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word", "xdigit",
];

const BALANCE: &str = "parentheses () not balanced";
const BRACKETS: &str = "brackets [] not balanced";
const BRACES: &str = "braces {} not balanced";
const OPERAND: &str = "quantifier operand invalid";
const ESCAPE: &str = "invalid escape \\ sequence";
const COUNT: &str = "invalid repetition count(s)";
const RANGE: &str = "invalid character range";
const CLASS: &str = "invalid character class";
const COLLATION: &str = "invalid collating element";

/// The options of a match, each a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// `g`: all matches instead of the first.
    pub(super) global: bool,
    any_case: bool,
    literal: bool,
    expanded: bool,
    /// Whether a point, and brackets that say what is not wanted, match the end of a line.
    across_lines: bool,
    /// Whether `^` and `$` match at each line.
    at_lines: bool,
}

impl Options {
    /// Reads letters.
    pub(super) fn parse(letters: &str) -> Result<Options> {
        let mut options = Options {
            global: false,
            any_case: false,
            literal: false,
            expanded: false,
            across_lines: true,
            at_lines: false,
        };
        for letter in letters.chars() {
            match letter {
                'g' => options.global = true,
                other => options.set(other)?,
            }
        }
        Ok(options)
    }

    fn set(&mut self, letter: char) -> Result<()> {
        match letter {
            'c' => self.any_case = false,
            'i' => self.any_case = true,
            // All expressions are of the advanced kind, of which the extended ones are a part.
            'e' => {}
            'm' | 'n' => (self.across_lines, self.at_lines) = (false, true),
            'p' => (self.across_lines, self.at_lines) = (false, false),
            's' => (self.across_lines, self.at_lines) = (true, false),
            'w' => (self.across_lines, self.at_lines) = (true, true),
            'q' => self.literal = true,
            't' => self.expanded = false,
            'x' => self.expanded = true,
            'b' => return Err(unsupported("basic regular expressions are not supported")),
            other => {
                let message = format!("invalid regular expression option: \"{other}\"");
                let error = Error::report(Condition::InvalidParameterValue, message);
                return Err(DataFusionError::External(Box::new(error)));
            }
        }
        Ok(())
    }

    /// The expression `pattern` with these options and those that it begins with itself.
    ///
    /// # Errors
    /// 2201B for what is no expression, 0A000 for what is not supported.
    pub(super) fn compile(mut self, pattern: &str) -> Result<Regex> {
        let mut pattern = pattern;
        if let Some(literal) = pattern.strip_prefix("***=") {
            (self.literal, pattern) = (true, literal);
        } else if !self.literal {
            pattern = self.embedded(pattern.strip_prefix("***:").unwrap_or(pattern))?;
        }
        let written = if self.literal { regex::escape(pattern) } else { Translation::of(pattern, self)? };
        let mut builder = RegexBuilder::new(&written);
        builder.case_insensitive(self.any_case).dot_matches_new_line(self.across_lines).multi_line(self.at_lines);
        builder.build().map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => invalid("regular expression is too complex"),
            _ => invalid(OPERAND),
        })
    }

    /// Takes `(?letters)` from the front.
    fn embedded<'p>(&mut self, pattern: &'p str) -> Result<&'p str> {
        let Some(inner) = pattern.strip_prefix("(?") else { return Ok(pattern) };
        let letters = inner.bytes().take_while(u8::is_ascii_lowercase).count();
        if letters == 0 || inner.as_bytes().get(letters) != Some(&b')') {
            return Ok(pattern);
        }
        inner[..letters].chars().try_for_each(|letter| self.set(letter))?;
        Ok(&inner[letters + 1..])
    }
}

/// What stands before the place that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// The beginning of an expression or a branch, or a condition: nothing that could be repeated.
    Nothing,
    Atom,
    Quantifier,
}

/// An expression being written anew.
struct Translation<'p> {
    rest: Peekable<Chars<'p>>,
    out: String,
    options: Options,
    open: usize,
    last: Last,
}

impl<'p> Translation<'p> {
    fn of(pattern: &'p str, options: Options) -> Result<String> {
        let rest = pattern.chars().peekable();
        let mut translation = Translation { rest, out: String::new(), options, open: 0, last: Last::Nothing };
        while let Some(next) = translation.rest.next() {
            translation.part(next)?;
        }
        if translation.open > 0 { Err(invalid(BALANCE)) } else { Ok(translation.out) }
    }

    fn part(&mut self, next: char) -> Result<()> {
        match next {
            '\\' => self.escape()?,
            '[' => self.brackets()?,
            '(' => self.open()?,
            ')' => {
                self.open = self.open.checked_sub(1).ok_or_else(|| invalid(BALANCE))?;
                self.put(")", Last::Atom);
            }
            '|' => self.put("|", Last::Nothing),
            '^' => self.put("^", Last::Nothing),
            '$' => self.put("$", Last::Nothing),
            '.' => self.put(".", Last::Atom),
            '*' => self.quantifier("*")?,
            '+' => self.quantifier("+")?,
            '?' => self.quantifier("?")?,
            '{' if self.rest.peek().is_some_and(char::is_ascii_digit) => {
                let bound = self.bound()?;
                self.quantifier(&bound)?;
            }
            blank if self.options.expanded && blank.is_whitespace() => {}
            '#' if self.options.expanded => while self.rest.next().is_some_and(|next| next != '\n') {},
            other => self.literal(other),
        }
        Ok(())
    }

    fn put(&mut self, text: &str, last: Last) {
        self.out.push_str(text);
        self.last = last;
    }

    fn literal(&mut self, character: char) {
        put_literal(&mut self.out, character);
        self.last = Last::Atom;
    }

    fn takes(&mut self, wanted: char) -> bool {
        self.rest.next_if_eq(&wanted).is_some()
    }

    /// A quantifier repeats an atom, and no quantifier. A `?` behind it makes it take as little as it can.
    fn quantifier(&mut self, written: &str) -> Result<()> {
        if self.last != Last::Atom {
            return Err(invalid(OPERAND));
        }
        self.put(written, Last::Quantifier);
        if self.takes('?') {
            self.out.push('?');
        }
        Ok(())
    }

    /// `{m}`, `{m,}` or `{m,n}` behind its brace.
    fn bound(&mut self) -> Result<String> {
        let least = self.number()?;
        let most = match self.takes(',') {
            false => Some(least),
            true if self.rest.peek().is_some_and(char::is_ascii_digit) => Some(self.number()?),
            true => None,
        };
        if !self.takes('}') {
            return Err(invalid(BRACES));
        }
        match most {
            Some(most) if most < least => Err(invalid(COUNT)),
            Some(most) => Ok(format!("{{{least},{most}}}")),
            None => Ok(format!("{{{least},}}")),
        }
    }

    fn number(&mut self) -> Result<u32> {
        let mut number = 0_u32;
        while let Some(digit) = self.rest.next_if(char::is_ascii_digit) {
            number = (number * 10 + digit.to_digit(10).unwrap_or(0)).min(BOUND_MAX + 1);
        }
        if number > BOUND_MAX { Err(invalid(COUNT)) } else { Ok(number) }
    }

    fn open(&mut self) -> Result<()> {
        let group = if self.takes('?') {
            match self.rest.next() {
                Some(':') => "(?:",
                Some('=' | '!' | '<') => {
                    return Err(unsupported("regular expressions that look around are not supported"));
                }
                _ => return Err(invalid(OPERAND)),
            }
        } else {
            "("
        };
        self.open += 1;
        self.put(group, Last::Nothing);
        Ok(())
    }

    fn escape(&mut self) -> Result<()> {
        let Some(letter) = self.rest.next() else { return Err(invalid(ESCAPE)) };
        match letter {
            'm' => self.put(r"\b{start}", Last::Nothing),
            'M' => self.put(r"\b{end}", Last::Nothing),
            'y' => self.put(r"\b", Last::Nothing),
            'Y' => self.put(r"\B", Last::Nothing),
            'A' => self.put(r"\A", Last::Nothing),
            'Z' => self.put(r"\z", Last::Nothing),
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => {
                self.out.push('\\');
                self.out.push(letter);
                self.last = Last::Atom;
            }
            '1'..='9' => return Err(unsupported("references back in regular expressions are not supported")),
            other => {
                let character = self.escaped(other)?;
                self.literal(character);
            }
        }
        Ok(())
    }

    /// The character that an escape stands for, its first letter taken.
    fn escaped(&mut self, letter: char) -> Result<char> {
        Ok(match letter {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'B' => '\\',
            'c' => {
                let of = self.rest.next().ok_or_else(|| invalid(ESCAPE))?;
                char::from_u32(u32::from(of) & 0x1f).unwrap_or(of)
            }
            'e' => '\u{1b}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => self.numbered(16, 4, 4)?,
            'U' => self.numbered(16, 8, 8)?,
            'v' => '\u{b}',
            'x' => self.numbered(16, 1, usize::MAX)?,
            '0' => self.numbered(8, 0, 2)?,
            other if other.is_alphanumeric() => return Err(invalid(ESCAPE)),
            other => other,
        })
    }

    /// The character of a number of so many digits.
    fn numbered(&mut self, base: u32, least: usize, most: usize) -> Result<char> {
        let (mut number, mut count) = (0_u32, 0);
        while count < most
            && let Some(digit) = self.rest.next_if(|next| next.is_digit(base))
        {
            number = number.saturating_mul(base).saturating_add(digit.to_digit(base).unwrap_or(0));
            count += 1;
        }
        let character = char::from_u32(number).filter(|_| count >= least);
        character.ok_or_else(|| invalid(ESCAPE))
    }

    fn brackets(&mut self) -> Result<()> {
        for (word, boundary) in [("[:<:]]", r"\b{start}"), ("[:>:]]", r"\b{end}")] {
            if self.rest.clone().take(word.len()).eq(word.chars()) {
                self.rest.nth(word.len() - 1);
                self.put(boundary, Last::Nothing);
                return Ok(());
            }
        }
        self.out.push('[');
        let negated = self.takes('^');
        if negated {
            self.out.push('^');
        }
        let mut is_first = true;
        loop {
            let next = self.rest.next().ok_or_else(|| invalid(BRACKETS))?;
            if next == ']' && !is_first {
                break;
            }
            is_first = false;
            self.member(next)?;
        }
        if negated && !self.options.across_lines {
            self.out.push_str(r"\n");
        }
        self.put("]", Last::Atom);
        Ok(())
    }

    /// A character in brackets, a range, or a class.
    fn member(&mut self, next: char) -> Result<()> {
        let first = match (next, self.rest.peek().copied()) {
            ('[', Some(':')) => {
                let name = self.named(':')?;
                if !CLASSES.contains(&name.as_str()) {
                    return Err(invalid(CLASS));
                }
                self.out.push_str(&format!("[:{name}:]"));
                return Ok(());
            }
            ('\\', Some(class @ ('d' | 'D' | 's' | 'S' | 'w' | 'W'))) => {
                self.rest.next();
                self.out.push('\\');
                self.out.push(class);
                return Ok(());
            }
            _ => self.element(next)?,
        };
        let mut ahead = self.rest.clone();
        if ahead.next() != Some('-') || matches!(ahead.next(), None | Some(']')) {
            put_literal(&mut self.out, first);
            return Ok(());
        }
        self.rest.next();
        let next = self.rest.next().ok_or_else(|| invalid(BRACKETS))?;
        let last = self.element(next)?;
        if last < first {
            return Err(invalid(RANGE));
        }
        put_literal(&mut self.out, first);
        self.out.push('-');
        put_literal(&mut self.out, last);
        Ok(())
    }

    /// One character in brackets, however it is written.
    fn element(&mut self, next: char) -> Result<char> {
        match (next, self.rest.peek().copied()) {
            ('[', Some(mark @ ('.' | '='))) => {
                let name = self.named(mark)?;
                let mut characters = name.chars();
                match (characters.next(), characters.next()) {
                    (Some(character), None) => Ok(character),
                    _ => Err(invalid(COLLATION)),
                }
            }
            ('\\', _) => {
                let letter = self.rest.next().ok_or_else(|| invalid(BRACKETS))?;
                self.escaped(letter)
            }
            (other, _) => Ok(other),
        }
    }

    /// What stands between `[:` and `:]`.
    fn named(&mut self, mark: char) -> Result<String> {
        self.rest.next();
        let mut name = String::new();
        loop {
            match self.rest.next() {
                Some(end) if end == mark && self.takes(']') => return Ok(name),
                Some(other) => name.push(other),
                None => return Err(invalid(BRACKETS)),
            }
        }
    }
}

/// Appends a character that stands for itself, in brackets and outside of them.
fn put_literal(out: &mut String, character: char) {
    match character {
        letter if letter.is_alphanumeric() || !letter.is_ascii() => out.push(letter),
        mark if mark.is_ascii_punctuation() => out.extend(['\\', mark]),
        other => out.push_str(&format!("\\x{{{:x}}}", u32::from(other))),
    }
}

fn invalid(reason: &str) -> DataFusionError {
    let message = format!("invalid regular expression: {reason}");
    DataFusionError::External(Box::new(Error::report(Condition::InvalidRegularExpression, message)))
}

fn unsupported(message: &str) -> DataFusionError {
    DataFusionError::External(Box::new(Error::report(Condition::FeatureNotSupported, message)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compile(pattern: &str, letters: &str) -> Result<Regex> {
        Options::parse(letters).and_then(|options| options.compile(pattern))
    }

    /// Answers are PostgreSQL's.
    #[test]
    fn expressions_match_what_they_match_in_postgresql() {
        for (text, pattern, letters, expected) in [
            ("a\nb", "a.b", "", true),
            ("a\nb", "a.b", "n", false),
            ("a\nb", "a[^x]b", "p", false),
            ("a\nb", "a[^x]b", "w", true),
            ("a\nb", "^b", "", false),
            ("a\nb", "^b", "n", true),
            ("a\nb", "a$", "w", true),
            ("a\n", "a$", "", false),
            ("a b", r"\ma\M", "", true),
            ("ab", r"a\y", "", false),
            ("ab", "a[[:>:]]", "", false),
            ("a", "[[:<:]]a[[:>:]]", "", true),
            ("a]b", "[]]", "", true),
            ("a-b", r"[a\]-]", "", true),
            ("^", "[x^]", "", true),
            ("&&", "[a&&b]{2}", "", true),
            ("b", "[[.a.]-[=c=]]", "", true),
            ("é", r"\u00e9", "", true),
            ("\u{8}", r"\b", "", true),
            (r"\", r"\B", "", true),
            ("{", "{", "", true),
            ("a{", "a{,3}", "", false),
            ("axb", "a.b", "q", false),
            ("a.b", "***=a.b", "", true),
            ("X", "(?i)x", "", true),
            ("ab", "a b # c", "x", true),
            ("a b", r"a\ b", "x", true),
            ("aé1_", r"^\w+$", "", true),
        ] {
            let regex = compile(pattern, letters).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!(regex.is_match(text), expected, "{text:?} ~ {pattern:?} with {letters:?}, as {regex}");
        }
    }

    #[test]
    fn refusals_are_worded_as_in_postgresql() {
        for (pattern, expected) in [
            ("(abc", BALANCE),
            ("abc)", BALANCE),
            ("[abc", BRACKETS),
            ("*abc", OPERAND),
            ("a**", OPERAND),
            ("^*", OPERAND),
            (r"\q", ESCAPE),
            ("a{2,1}", COUNT),
            ("a{256}", COUNT),
            ("a{1", BRACES),
            ("[c-a]", RANGE),
            ("[[:foo:]]", CLASS),
            ("[[.ab.]]", COLLATION),
        ] {
            let error = compile(pattern, "").expect_err(pattern).to_string();
            assert!(error.ends_with(&format!("invalid regular expression: {expected}")), "{pattern}: {error}");
        }
        for pattern in ["(?=a)", "(?<!a)", r"(a)\1"] {
            let error = compile(pattern, "").expect_err(pattern).to_string();
            assert!(error.ends_with("not supported"), "{pattern}: {error}");
        }
    }

    proptest! {
        /// Whatever is translated can be compiled: the engine never meets a syntax of its own.
        #[test]
        fn what_is_translated_is_an_expression(
            pattern in r"([a-c\[\]^\\(){},|.*+?0-9$#&~ -]|\[:alpha:\]|\\[a-zA-Z]|\(\?:){0,12}",
            letters in "[inpwsxq]{0,3}",
        ) {
            if let Err(error) = compile(&pattern, &letters) {
                let error = error.to_string();
                prop_assert!(error.contains("invalid regular expression") || error.contains("not supported"), "{}", error);
            }
            let translated = Options::parse(&letters).and_then(|options| Translation::of(&pattern, options));
            if let Ok(translated) = translated {
                let compiled = Regex::new(&translated);
                prop_assert!(!matches!(compiled, Err(regex::Error::Syntax(_))), "{:?} became {:?}", pattern, translated);
            }
        }
    }
}
