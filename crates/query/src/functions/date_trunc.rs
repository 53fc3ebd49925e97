//! `date_trunc(field, time)` in UTC and for times without a zone: by arithmetic where the field has one length, up to weeks, and by the calendar
//! beyond.
//!
//! The library goes by the calendar, row by row, for whatever has a zone, also for UTC, and knows neither infinite times, nor those that
//! nanoseconds do not reach, nor all of PostgreSQL's fields. Other types are left to it, and so is all that it tells the planner about itself.
//! Other zones of the session do not come here; see `session/zoned.rs`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, FieldRef, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DataFusionError, ExprSchema, Result, ScalarValue};
use datafusion::functions::datetime;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ExpressionPlacement, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, StructFieldMapping,
};

use super::extract::{Part, not_recognized, part_of, refusal, type_name};
use crate::error::Condition;

const MILLISECOND_US: i64 = 1_000;
const SECOND_US: i64 = 1_000 * MILLISECOND_US;
const MINUTE_US: i64 = 60 * SECOND_US;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY_US: i64 = 24 * HOUR_US;
const WEEK_US: i64 = 7 * DAY_US;
/// A Monday, at which weeks begin; the day that is zero was a Thursday.
const MONDAY_US: i64 = 4 * DAY_US;

/// The function.
pub(super) fn date_trunc() -> ScalarUDF {
    ScalarUDF::from(DateTrunc(datetime::date_trunc()))
}

/// The library's function, with a shorter way.
#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc(Arc<ScalarUDF>);

impl DateTrunc {
    fn library(&self) -> &dyn ScalarUDFImpl {
        self.0.inner().as_ref()
    }
}

// What the library may say of itself tomorrow is to be said here too.
#[deny(clippy::missing_trait_methods)]
impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        self.library().name()
    }

    fn aliases(&self) -> &[String] {
        self.library().aliases()
    }

    fn display_name(&self, arguments: &[Expr]) -> Result<String> {
        #[expect(deprecated, reason = "whatever is said is passed on")]
        self.library().display_name(arguments)
    }

    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        self.library().schema_name(arguments)
    }

    fn signature(&self) -> &Signature {
        self.library().signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.library().return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        self.library().return_field_from_args(arguments)
    }

    fn is_nullable(&self, arguments: &[Expr], schema: &dyn ExprSchema) -> bool {
        #[expect(deprecated, reason = "whatever is said is passed on")]
        self.library().is_nullable(arguments, schema)
    }

    fn is_strict(&self) -> bool {
        self.library().is_strict()
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let updated = self.library().with_updated_config(config)?;
        Some(ScalarUDF::from(DateTrunc(Arc::new(updated))))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [field, times] = arguments.args.as_slice() else { return self.library().invoke_with_args(arguments) };
        let Some(name) = text_of(field).filter(|_| is_even(&times.data_type())) else {
            return self.library().invoke_with_args(arguments);
        };
        let field = Field::named(name, &times.data_type())?;
        match times {
            ColumnarValue::Array(times) => Ok(ColumnarValue::Array(field.cut_off(times)?)),
            ColumnarValue::Scalar(time) => {
                let cut = field.cut_off(&time.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&cut, 0)?))
            }
        }
    }

    fn simplify(&self, arguments: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.library().simplify(arguments, context)
    }

    fn preimage(&self, arguments: &[Expr], value: &Expr, context: &SimplifyContext) -> Result<PreimageResult> {
        self.library().preimage(arguments, value, context)
    }

    fn short_circuits(&self) -> bool {
        self.library().short_circuits()
    }

    fn conditional_arguments<'a>(&self, arguments: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.library().conditional_arguments(arguments)
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        self.library().evaluate_bounds(input)
    }

    fn propagate_constraints(&self, interval: &Interval, inputs: &[&Interval]) -> Result<Option<Vec<Interval>>> {
        self.library().propagate_constraints(interval, inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.library().output_ordering(inputs)
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.library().preserves_lex_ordering(inputs)
    }

    fn strictly_order_preserving(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.library().strictly_order_preserving(inputs)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.library().coerce_types(arguments)
    }

    fn struct_field_mapping(&self, literals: &[Option<ScalarValue>]) -> Option<StructFieldMapping> {
        self.library().struct_field_mapping(literals)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.library().documentation()
    }

    fn placement(&self, arguments: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.library().placement(arguments)
    }
}

/// Whether a field, by any of its names, is shorter than a day.
pub(crate) fn is_within_day(name: &str) -> bool {
    matches!(
        Field::named(name, &DataType::Timestamp(TimeUnit::Microsecond, None)),
        Ok(Field::Microsecond | Field::Millisecond | Field::Second | Field::Minute | Field::Hour)
    )
}

/// Whether all days of a type's times are equally long.
fn is_even(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) => matches!(zone.as_ref(), "UTC" | "+00:00"),
        DataType::Timestamp(TimeUnit::Microsecond, None) => true,
        _ => false,
    }
}

/// A text that is the same for all rows.
fn text_of(value: &ColumnarValue) -> Option<&str> {
    match value {
        ColumnarValue::Scalar(text) => text.try_as_str().flatten(),
        ColumnarValue::Array(_) => None,
    }
}

/// What times are cut off to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Calendar(Calendar),
}

/// A field whose length the calendar says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Calendar {
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
}

impl Field {
    /// The field of that name, by any of the names PostgreSQL knows.
    ///
    /// # Errors
    /// 22023 for what is no field to cut off to, 0A000 for time zones, as PostgreSQL.
    fn named(name: &str, data_type: &DataType) -> Result<Field> {
        Ok(match part_of(name, data_type)? {
            Part::Microseconds => Field::Microsecond,
            Part::Milliseconds => Field::Millisecond,
            Part::Second => Field::Second,
            Part::Minute => Field::Minute,
            Part::Hour => Field::Hour,
            Part::Day => Field::Day,
            Part::Week => Field::Week,
            Part::Month => Field::Calendar(Calendar::Month),
            Part::Quarter => Field::Calendar(Calendar::Quarter),
            Part::Year => Field::Calendar(Calendar::Year),
            Part::Decade => Field::Calendar(Calendar::Decade),
            Part::Century => Field::Calendar(Calendar::Century),
            Part::Millennium => Field::Calendar(Calendar::Millennium),
            Part::Dow | Part::IsoDow | Part::Doy | Part::IsoYear | Part::Epoch => {
                return Err(not_recognized(name, data_type));
            }
            Part::Timezone | Part::TimezoneHour | Part::TimezoneMinute => {
                let name = name.to_lowercase();
                let message = format!("unit \"{name}\" not supported for type {}", type_name(data_type));
                return Err(refusal(Condition::FeatureNotSupported, message));
            }
        })
    }

    /// Where the field begins that holds each time; `times` is one of [`is_even`].
    fn cut_off(self, times: &ArrayRef) -> Result<ArrayRef> {
        let values = times.as_primitive::<TimestampMicrosecondType>();
        // Each length is a constant of its own loop, so that no row divides by what is not known.
        let cut: Result<TimestampMicrosecondArray> = match self {
            Field::Microsecond => return Ok(Arc::clone(times)),
            Field::Millisecond => values.try_unary(begin::<MILLISECOND_US, 0>),
            Field::Second => values.try_unary(begin::<SECOND_US, 0>),
            Field::Minute => values.try_unary(begin::<MINUTE_US, 0>),
            Field::Hour => values.try_unary(begin::<HOUR_US, 0>),
            Field::Day => values.try_unary(begin::<DAY_US, 0>),
            Field::Week => values.try_unary(begin::<WEEK_US, MONDAY_US>),
            Field::Calendar(field) => values.try_unary(|us| field.begin(us)),
        };
        let cut = cut?.with_data_type(times.data_type().clone());
        Ok(Arc::new(cut) as ArrayRef)
    }
}

impl Calendar {
    /// The first moment of the field that holds `us`. What is infinite stays so.
    fn begin(self, us: i64) -> Result<i64> {
        if us == i64::MIN || us == i64::MAX {
            return Ok(us);
        }
        let date = DateTime::from_timestamp_micros(us).ok_or_else(out_of_range)?.date_naive();
        let year = date.year();
        // Centuries and millennia begin with a year that ends in 1; the year before the first is 0 here.
        let since_one = |years: i32| (year - 1).div_euclid(years) * years + 1;
        let (year, month) = match self {
            Calendar::Month => (year, date.month()),
            Calendar::Quarter => (year, date.month0() / 3 * 3 + 1),
            Calendar::Year => (year, 1),
            Calendar::Decade => (year.div_euclid(10) * 10, 1),
            Calendar::Century => (since_one(100), 1),
            Calendar::Millennium => (since_one(1000), 1),
        };
        let first = NaiveDate::from_ymd_opt(year, month, 1).ok_or_else(out_of_range)?;
        (first - NaiveDate::default()).num_days().checked_mul(DAY_US).ok_or_else(out_of_range)
    }
}

/// The last multiple of a length, counted from `FIRST`, that is not after `us`. What is infinite stays so.
fn begin<const LENGTH: i64, const FIRST: i64>(us: i64) -> Result<i64> {
    if us == i64::MIN || us == i64::MAX {
        return Ok(us);
    }
    let since = us.rem_euclid(LENGTH) - FIRST;
    let since = if since < 0 { since + LENGTH } else { since };
    us.checked_sub(since).ok_or_else(out_of_range)
}

fn out_of_range() -> DataFusionError {
    refusal(Condition::DatetimeOverflow, "timestamp out of range".to_owned())
}

#[cfg(test)]
mod tests {
    use arrow::compute::SortOptions;
    use proptest::prelude::*;

    use super::*;

    const FIELDS: [&str; 10] =
        ["microsecond", "millisecond", "second", "minute", "HOUR", "day", "Week", "month", "quarter", "year"];

    fn call(function: &ScalarUDF, field: &str, times: ColumnarValue) -> Result<ColumnarValue> {
        let data_type = times.data_type();
        let number_rows = match &times {
            ColumnarValue::Array(times) => times.len(),
            ColumnarValue::Scalar(_) => 1,
        };
        function.invoke_with_args(ScalarFunctionArgs {
            args: vec![ColumnarValue::Scalar(field.into()), times],
            arg_fields: vec![
                Arc::new(arrow::datatypes::Field::new("field", DataType::Utf8, false)),
                Arc::new(arrow::datatypes::Field::new("time", data_type.clone(), true)),
            ],
            number_rows,
            return_field: Arc::new(arrow::datatypes::Field::new("date_trunc", data_type, true)),
            config_options: Arc::default(),
        })
    }

    fn array(values: Vec<Option<i64>>, zone: Option<&str>) -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone_opt(zone))
    }

    fn us(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).expect("a time").timestamp_micros()
    }

    /// Cut off as one of several rows and as a single value, which must agree.
    fn cut(field: &str, time: i64) -> i64 {
        let function = date_trunc();
        let rows = ColumnarValue::Array(array(vec![None, Some(time)], Some("UTC")));
        let ColumnarValue::Array(rows) = call(&function, field, rows).expect("it is cut off") else {
            panic!("rows stay rows")
        };
        assert!(rows.is_null(0));
        let scalar = ScalarValue::TimestampMicrosecond(Some(time), Some("UTC".into()));
        let scalar = call(&function, field, ColumnarValue::Scalar(scalar)).expect("it is cut off");
        let cut = rows.as_primitive::<TimestampMicrosecondType>().value(1);
        let ColumnarValue::Scalar(scalar) = scalar else { panic!("a single value stays one") };
        assert_eq!(scalar, ScalarValue::TimestampMicrosecond(Some(cut), Some("UTC".into())), "{field}");
        cut
    }

    #[test]
    fn infinite_times_stay_and_far_ones_are_cut_off() {
        for field in FIELDS.iter().chain(&["decade", "century", "millennium"]) {
            assert_eq!(cut(field, i64::MIN), i64::MIN, "{field}");
            assert_eq!(cut(field, i64::MAX), i64::MAX, "{field}");
        }
        let far = us("5000-06-15T12:34:56.789012Z");
        for (field, expected) in [
            ("microsecond", "5000-06-15T12:34:56.789012Z"),
            ("millisecond", "5000-06-15T12:34:56.789Z"),
            ("second", "5000-06-15T12:34:56Z"),
            ("minute", "5000-06-15T12:34:00Z"),
            ("hour", "5000-06-15T12:00:00Z"),
            ("day", "5000-06-15T00:00:00Z"),
            ("week", "5000-06-09T00:00:00Z"),
            ("months", "5000-06-01T00:00:00Z"),
            ("qtr", "5000-04-01T00:00:00Z"),
            ("year", "5000-01-01T00:00:00Z"),
            ("decade", "5000-01-01T00:00:00Z"),
            ("century", "4901-01-01T00:00:00Z"),
            ("mil", "4001-01-01T00:00:00Z"),
        ] {
            assert_eq!(cut(field, far), us(expected), "{field}");
        }
        assert_eq!(cut("week", 0), us("1969-12-29T00:00:00Z"));
        assert_eq!(cut("week", us("1969-12-28T23:59:59Z")), us("1969-12-22T00:00:00Z"));
        assert_eq!(cut("hour", -1), us("1969-12-31T23:00:00Z"));
    }

    #[test]
    fn what_lies_before_the_first_time_is_refused() {
        let scalar = ScalarValue::TimestampMicrosecond(Some(i64::MIN + 1), Some("UTC".into()));
        let refused = call(&date_trunc(), "day", ColumnarValue::Scalar(scalar)).expect_err("there is no such day");
        assert!(refused.to_string().contains("timestamp out of range"), "{refused}");
    }

    #[test]
    fn a_null_stays_and_what_is_no_field_is_refused() {
        let null = ScalarValue::TimestampMicrosecond(None, Some("UTC".into()));
        let ColumnarValue::Scalar(cut) = call(&date_trunc(), "hour", ColumnarValue::Scalar(null.clone())).unwrap()
        else {
            panic!("a single value stays one")
        };
        assert_eq!(cut, null);
        let zero = || ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(Some(0), Some("UTC".into())));
        for (field, refused) in [
            ("Eon", "unit \"eon\" not recognized for type timestamp with time zone"),
            ("dow", "unit \"dow\" not recognized for type timestamp with time zone"),
            ("timezone", "unit \"timezone\" not supported for type timestamp with time zone"),
        ] {
            let error = call(&date_trunc(), field, zero()).expect_err("it is no field to cut off to");
            assert!(error.to_string().contains(refused), "{error}");
        }
    }

    #[test]
    fn the_planner_is_told_the_same() -> Result<()> {
        let (ours, theirs) = (date_trunc(), datetime::date_trunc());
        assert_eq!((ours.name(), ours.aliases()), (theirs.name(), theirs.aliases()));
        assert_eq!(ours.signature(), theirs.signature());
        let field = ExprProperties::new_unknown().with_order(SortProperties::Singleton);
        let ascending = SortProperties::Ordered(SortOptions::default());
        for (order, expected) in [(ascending, ascending), (SortProperties::Unordered, SortProperties::Unordered)] {
            let inputs = [field.clone(), ExprProperties::new_unknown().with_order(order)];
            assert_eq!(ours.output_ordering(&inputs)?, expected);
            assert_eq!(theirs.output_ordering(&inputs)?, expected);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn the_library_cuts_off_at_the_same_places(
            seconds in prop::collection::vec(prop::option::of((seconds_of(1700)..seconds_of(2260), 0..1_000_000_i64)), 0..20),
            field in prop::sample::select(FIELDS.to_vec()),
            zone in prop::sample::select(vec![None, Some("UTC"), Some("+00:00"), Some("+02:00"), Some("Europe/Berlin")]),
        ) {
            let values = seconds.into_iter().map(|time| time.map(|(seconds, us)| seconds * SECOND_US + us));
            let times = array(values.collect(), zone);
            let cut = |function: &ScalarUDF| {
                let cut = call(function, field, ColumnarValue::Array(Arc::clone(&times))).expect("it is cut off");
                cut.into_array(times.len()).expect("rows")
            };
            prop_assert_eq!(&cut(&date_trunc()), &cut(&datetime::date_trunc()));
        }
    }

    fn seconds_of(year: i32) -> i64 {
        let first = NaiveDate::from_ymd_opt(year, 1, 1).expect("a year");
        first.and_hms_opt(0, 0, 0).expect("midnight").and_utc().timestamp()
    }
}
