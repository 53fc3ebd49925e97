//! `regexp_match` and its kin, as PostgreSQL has them: the library's have another syntax, other options and other answers.

mod pattern;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, ListBuilder, StringArray, StringBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use regex::{Captures, Regex};

use self::pattern::Options;
use crate::error::{Condition, Error};

/// `regexp_matches(...)` is this, unnested.
pub(crate) const MATCHES: &str = "annal_regexp_matches";

/// All of them.
pub(super) fn all() -> impl Iterator<Item = Arc<ScalarUDF>> {
    let functions = [
        Function::Match,
        Function::Matches,
        Function::Split,
        Function::Like,
        Function::Count,
        Function::Position,
        Function::Substring,
        Function::Replace,
    ];
    functions.into_iter().map(|function| {
        let signature = Signature::variadic_any(Volatility::Immutable);
        Arc::new(ScalarUDF::from(Regexp { function, signature }))
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Function {
    /// The groups of the first match.
    Match,
    /// The groups of each match.
    Matches,
    /// What lies between the matches.
    Split,
    Like,
    Count,
    Position,
    Substring,
    Replace,
}

/// What an argument behind text and pattern is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Argument {
    Replacement,
    Start,
    /// Which match.
    Number,
    /// Whether the end of the match is asked for, 1, or its beginning, 0.
    End,
    Flags,
    /// Which group of the match.
    Group,
}

impl Function {
    fn name(self) -> &'static str {
        match self {
            Function::Match => "regexp_match",
            Function::Matches => MATCHES,
            Function::Split => "regexp_split_to_array",
            Function::Like => "regexp_like",
            Function::Count => "regexp_count",
            Function::Position => "regexp_instr",
            Function::Substring => "regexp_substr",
            Function::Replace => "regexp_replace",
        }
    }

    /// Arguments behind text and pattern, in their order; the first of them may have to be given. The third one of `regexp_replace` says by
    /// its type what it is.
    fn arguments(self, types: &[DataType]) -> &'static [Argument] {
        use Argument::{End, Flags, Group, Number, Replacement, Start};
        match self {
            Function::Match | Function::Matches | Function::Split | Function::Like => &[Flags],
            Function::Count => &[Start, Flags],
            Function::Position => &[Start, Number, End, Flags, Group],
            Function::Substring => &[Start, Number, Flags, Group],
            Function::Replace if types.get(3).is_some_and(DataType::is_integer) => &[Replacement, Start, Number, Flags],
            Function::Replace => &[Replacement, Flags],
        }
    }

    fn returns(self) -> DataType {
        let list = |of: DataType| DataType::List(Arc::new(Field::new_list_field(of, true)));
        match self {
            Function::Match | Function::Split => list(DataType::Utf8),
            Function::Matches => list(list(DataType::Utf8)),
            Function::Like => DataType::Boolean,
            Function::Count | Function::Position => DataType::Int32,
            Function::Substring | Function::Replace => DataType::Utf8,
        }
    }

    /// What to say when all matches are asked for, where that makes no sense.
    fn refuses_global(self) -> Option<Error> {
        if matches!(self, Function::Matches | Function::Replace) {
            return None;
        }
        let message = format!("{}() does not support the \"global\" option", self.name());
        Some(match self {
            Function::Match => {
                let hint = "Use the regexp_matches function instead.";
                Error::hinted(Condition::InvalidParameterValue, message, hint)
            }
            _ => Error::report(Condition::InvalidParameterValue, message),
        })
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Regexp {
    function: Function,
    signature: Signature,
}

impl ScalarUDFImpl for Regexp {
    fn name(&self) -> &'static str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let is_text = |data_type: &DataType| data_type.is_string() || data_type.is_null();
        let least = if self.function == Function::Replace { 3 } else { 2 };
        let arguments = self.function.arguments(types);
        let fit = types.iter().skip(2).zip(arguments).all(|(data_type, argument)| match argument {
            Argument::Replacement | Argument::Flags => is_text(data_type),
            _ => data_type.is_integer() || data_type.is_null(),
        });
        if !(least..=2 + arguments.len()).contains(&types.len()) || !types.iter().take(2).all(is_text) || !fit {
            return plan_err!("{} takes other arguments", self.name());
        }
        Ok(self.function.returns())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let types: Vec<DataType> = arguments.args.iter().map(ColumnarValue::data_type).collect();
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let calls = Calls::of(self.function, &types, &arrays)?;
        let answer: ArrayRef = match self.function {
            Function::Match => {
                Arc::new(lists(calls.answers(|call| Ok(call.matches().next().map(|one| groups(&one))))?))
            }
            Function::Matches => Arc::new(lists_of_lists(calls.answers(|call| Ok(Some(call.all_groups())))?)),
            Function::Split => Arc::new(lists(calls.answers(|call| Ok(Some(call.split())))?)),
            Function::Like => {
                Arc::new(BooleanArray::from(calls.answers(|call| Ok(Some(call.regex.is_match(call.text))))?))
            }
            Function::Count => {
                Arc::new(Int32Array::from(calls.answers(|call| Ok(Some(call.matches().count() as i32)))?))
            }
            Function::Position => Arc::new(Int32Array::from(calls.answers(|call| Ok(Some(call.position())))?)),
            Function::Substring => Arc::new(StringArray::from(calls.answers(|call| Ok(call.substring()))?)),
            Function::Replace => Arc::new(StringArray::from(calls.answers(|call| Ok(Some(call.replaced())))?)),
        };
        Ok(ColumnarValue::Array(answer))
    }
}

/// The arguments of all rows.
struct Calls {
    function: Function,
    texts: StringArray,
    patterns: StringArray,
    replacements: Option<StringArray>,
    flags: Option<StringArray>,
    starts: Option<Int64Array>,
    numbers: Option<Int64Array>,
    ends: Option<Int64Array>,
    groups: Option<Int64Array>,
    /// Rows in which no argument is NULL.
    given: Vec<bool>,
}

impl Calls {
    fn of(function: Function, types: &[DataType], arrays: &[ArrayRef]) -> Result<Calls> {
        let texts_of =
            |array: &ArrayRef| -> Result<StringArray> { Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone()) };
        let [texts, patterns, rest @ ..] = arrays else { return plan_err!("{} takes a text", function.name()) };
        let given =
            (0..texts.len()).map(|row| arrays.iter().all(|array| array.is_valid(row) && !array.data_type().is_null()));
        let mut calls = Calls {
            function,
            texts: texts_of(texts)?,
            patterns: texts_of(patterns)?,
            replacements: None,
            flags: None,
            starts: None,
            numbers: None,
            ends: None,
            groups: None,
            given: given.collect(),
        };
        for (array, argument) in rest.iter().zip(function.arguments(types)) {
            let number = || -> Result<Option<Int64Array>> {
                Ok(Some(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone()))
            };
            match argument {
                Argument::Replacement => calls.replacements = Some(texts_of(array)?),
                Argument::Flags => calls.flags = Some(texts_of(array)?),
                Argument::Start => calls.starts = number()?,
                Argument::Number => calls.numbers = number()?,
                Argument::End => calls.ends = number()?,
                Argument::Group => calls.groups = number()?,
            }
        }
        Ok(calls)
    }

    /// What `answer` says of each row.
    fn answers<T>(&self, answer: impl Fn(&Call<'_>) -> Result<Option<T>>) -> Result<Vec<Option<T>>> {
        let mut known: Option<(&str, &str, Regex, Options)> = None;
        let mut answers = Vec::with_capacity(self.given.len());
        for row in 0..self.given.len() {
            if !self.given[row] {
                answers.push(None);
                continue;
            }
            let (pattern, letters) =
                (self.patterns.value(row), self.flags.as_ref().map_or("", |flags| flags.value(row)));
            // Most columns of patterns are one pattern.
            let (_, _, regex, options) = match known.take().filter(|known| (known.0, known.1) == (pattern, letters)) {
                Some(same) => known.insert(same),
                None => {
                    let options = self.options(letters)?;
                    known.insert((pattern, letters, options.compile(pattern)?, options))
                }
            };
            answers.push(answer(&self.call(row, regex, *options)?)?);
        }
        Ok(answers)
    }

    fn options(&self, letters: &str) -> Result<Options> {
        let is_number = letters.starts_with(|first: char| first.is_ascii_digit());
        if self.function == Function::Replace && self.starts.is_none() && is_number {
            let message = format!("invalid regular expression option: \"{}\"", &letters[..1]);
            let hint = "If you meant to use regexp_replace() with a start parameter, cast the fourth argument to integer explicitly.";
            return Err(external(Error::hinted(Condition::InvalidParameterValue, message, hint)));
        }
        let options = Options::parse(letters)?;
        match self.function.refuses_global().filter(|_| options.global) {
            Some(refused) => Err(external(refused)),
            None => Ok(options),
        }
    }

    fn call<'c>(&'c self, row: usize, regex: &'c Regex, options: Options) -> Result<Call<'c>> {
        let number = |of: &Option<Int64Array>, name: &str, least: i64, most: i64| -> Result<Option<usize>> {
            let Some(value) = of.as_ref().map(|values| values.value(row)) else { return Ok(None) };
            if !(least..=most).contains(&value) {
                let message = format!("invalid value for parameter \"{name}\": {value}");
                return Err(external(Error::report(Condition::InvalidParameterValue, message)));
            }
            Ok(usize::try_from(value).ok())
        };
        let text = self.texts.value(row);
        let start = number(&self.starts, "start", 1, i64::MAX)?.unwrap_or(1);
        // Of replacements none is counted when all are wanted.
        let least = i64::from(self.function != Function::Replace);
        let wanted = number(&self.numbers, "n", least, i64::MAX)?;
        let all_or_one = usize::from(!(self.function == Function::Replace && self.starts.is_none() && options.global));
        Ok(Call {
            text,
            regex,
            from: place_of(text, start - 1),
            wanted: wanted.unwrap_or(all_or_one),
            at_end: number(&self.ends, "endoption", 0, 1)? == Some(1),
            group: number(&self.groups, "subexpr", 0, i64::MAX)?.unwrap_or(0),
            replacement: self.replacements.as_ref().map_or("", |texts| texts.value(row)),
            all: options.global,
        })
    }
}

/// One call.
struct Call<'c> {
    text: &'c str,
    regex: &'c Regex,
    /// The byte at which the search begins; `None` behind the text.
    from: Option<usize>,
    /// Which match, from 1; 0 is every match.
    wanted: usize,
    at_end: bool,
    group: usize,
    replacement: &'c str,
    all: bool,
}

impl<'c> Call<'c> {
    /// The matches one after the other. Behind an empty one the search goes on one character later.
    fn matches(&self) -> impl Iterator<Item = Captures<'c>> + use<'c> {
        let (text, regex, mut next) = (self.text, self.regex, self.from);
        std::iter::from_fn(move || {
            let found = regex.captures_at(text, next.take()?)?;
            let (begin, end) = span(&found);
            next = if begin == end { place_of(&text[end..], 1).map(|one| end + one) } else { Some(end) };
            Some(found)
        })
    }

    fn all_groups(&self) -> Vec<Vec<Option<String>>> {
        let matches = self.matches().map(|one| groups(&one));
        if self.all { matches.collect() } else { matches.take(1).collect() }
    }

    /// Empty matches at the end, and right behind another match, separate nothing.
    fn split(&self) -> Vec<Option<String>> {
        let (mut pieces, mut begin, mut end_before) = (Vec::new(), 0, 0);
        for found in self.matches() {
            let (from, to) = span(&found);
            if from < self.text.len() && to > end_before {
                pieces.push(Some(self.text[begin..from].to_owned()));
                begin = to;
            }
            end_before = to;
        }
        pieces.push(Some(self.text[begin..].to_owned()));
        pieces
    }

    /// Where the wanted group of the wanted match begins and ends.
    fn found(&self) -> Option<(usize, usize)> {
        let found = self.matches().nth(self.wanted - 1)?;
        found.get(self.group).map(|group| (group.start(), group.end()))
    }

    /// The character at which it begins, or the one behind its end, from 1; 0 when there is none.
    fn position(&self) -> i32 {
        let place = self.found().map(|(begin, end)| if self.at_end { end } else { begin });
        place.map_or(0, |place| self.text[..place].chars().count() as i32 + 1)
    }

    fn substring(&self) -> Option<String> {
        self.found().map(|(begin, end)| self.text[begin..end].to_owned())
    }

    fn replaced(&self) -> String {
        let (mut out, mut behind) = (String::new(), 0);
        for (number, found) in (1..).zip(self.matches()) {
            if self.wanted != 0 && number != self.wanted {
                continue;
            }
            let (begin, end) = span(&found);
            out.push_str(&self.text[behind..begin]);
            put_replacement(&mut out, self.replacement, &found);
            behind = end;
            if self.wanted != 0 {
                break;
            }
        }
        out.push_str(&self.text[behind..]);
        out
    }
}

/// `\1` to `\9` are groups, `\&` is the whole match, `\\` a backslash; another one is itself.
fn put_replacement(out: &mut String, replacement: &str, found: &Captures<'_>) {
    let mut rest = replacement;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let next = rest.as_bytes().get(at + 1);
        let group = match next {
            Some(digit @ b'1'..=b'9') => Some(usize::from(digit - b'0')),
            Some(b'&') => Some(0),
            _ => None,
        };
        match group {
            Some(group) => out.push_str(found.get(group).map_or("", |group| group.as_str())),
            None => out.push('\\'),
        }
        // Behind a backslash that is itself, what follows is looked at again, unless it is its pair.
        let taken = if group.is_some() || next == Some(&b'\\') { 2 } else { 1 };
        rest = &rest[at + taken..];
    }
    out.push_str(rest);
}

/// The groups of a match, or all of it where there are none.
fn groups(found: &Captures<'_>) -> Vec<Option<String>> {
    let skipped = usize::from(found.len() > 1);
    found.iter().skip(skipped).map(|group| group.map(|group| group.as_str().to_owned())).collect()
}

fn span(found: &Captures<'_>) -> (usize, usize) {
    found.get(0).map_or((0, 0), |whole| (whole.start(), whole.end()))
}

/// The byte behind so many characters; `None` when there are not as many.
fn place_of(text: &str, characters: usize) -> Option<usize> {
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(characters)
}

fn lists(rows: Vec<Option<Vec<Option<String>>>>) -> arrow::array::ListArray {
    let mut lists = ListBuilder::new(StringBuilder::new());
    rows.into_iter().for_each(|row| lists.append_option(row));
    lists.finish()
}

fn lists_of_lists(rows: Vec<Option<Vec<Vec<Option<String>>>>>) -> arrow::array::ListArray {
    let mut lists = ListBuilder::new(ListBuilder::new(StringBuilder::new()));
    for row in rows {
        let is_given = row.is_some();
        row.into_iter().flatten().for_each(|one| lists.values().append_option(Some(one)));
        lists.append(is_given);
    }
    lists.finish()
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
