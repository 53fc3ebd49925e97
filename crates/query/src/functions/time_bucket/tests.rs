use datafusion::prelude::SessionContext;
use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

async fn check(expression: &str, expected: Expect) {
    let context = SessionContext::new();
    context.register_udf(time_bucket());
    let sql = format!("SELECT arrow_cast(({expression}), 'Utf8')");
    let answer = match context.sql(&sql).await {
        Ok(frame) => frame.collect().await.map(|batches| batches[0].column(0).as_string::<i32>().value(0).to_owned()),
        Err(error) => Err(error),
    };
    let answer = answer.unwrap_or_else(|error| error.strip_backtrace().lines().next().unwrap_or_default().to_owned());
    expected.assert_eq(&answer);
}

/// A timestamptz column expression for text.
fn tz(text: &str) -> String {
    format!("arrow_cast('{text}', 'Timestamp(Microsecond, Some(\"UTC\"))')")
}

fn ts(text: &str) -> String {
    format!("arrow_cast('{text}', 'Timestamp(Microsecond, None)')")
}

#[tokio::test]
async fn widths_of_time_count_from_a_monday() {
    let at = tz("2013-07-10 17:43:21");
    check(&format!("time_bucket(INTERVAL '1 hour', {at})"), expect!["2013-07-10T17:00:00Z"]).await;
    check(&format!("time_bucket('300.000s', {at})"), expect!["2013-07-10T17:40:00Z"]).await;
    check(&format!("time_bucket('5m', {at})"), expect!["2013-07-10T17:40:00Z"]).await;
    check(&format!("time_bucket('1 week', {at})"), expect!["2013-07-08T00:00:00Z"]).await;
    check(&format!("time_bucket('1 day', {})", ts("1969-12-31 23:00:00")), expect!["1969-12-31T00:00:00"]).await;
    check("time_bucket('1 week', DATE '2013-07-10')", expect!["2013-07-08"]).await;
}

#[tokio::test]
async fn widths_of_months_count_from_2000() {
    check(&format!("time_bucket('1 month', {})", tz("2013-07-10 17:43:21")), expect!["2013-07-01T00:00:00Z"]).await;
    check(&format!("time_bucket('3 months', {})", tz("2013-09-30 17:43:21")), expect!["2013-07-01T00:00:00Z"]).await;
    check(&format!("time_bucket('1 year', {})", ts("1999-05-01 00:00:00")), expect!["1999-01-01T00:00:00"]).await;
    check("time_bucket('5 years', DATE '2013-07-10')", expect!["2010-01-01"]).await;
    check("time_bucket('2 months', DATE '2013-07-10', DATE '2000-02-01')", expect!["2013-06-01"]).await;
}

#[tokio::test]
async fn origin_and_offset_move_the_buckets() {
    let at = ts("2013-07-10 17:43:21");
    check(&format!("time_bucket('1 week', {at}, {})", ts("2000-01-02 00:00:00")), expect!["2013-07-07T00:00:00"]).await;
    check(&format!("time_bucket('1 day', {at}, INTERVAL '6 hours')"), expect!["2013-07-10T06:00:00"]).await;
    check(&format!("time_bucket('1 month', {at}, INTERVAL '14 days')"), expect!["2013-06-15T00:00:00"]).await;
}

#[tokio::test]
async fn a_zone_buckets_by_its_own_days() {
    let at = tz("2013-07-10 02:43:21");
    check(&format!("time_bucket('1 day', {at}, 'America/New_York')"), expect!["2013-07-09T04:00:00Z"]).await;
    // The day clocks go forward has 23 hours.
    check(
        &format!("time_bucket('1 day', {}, 'Europe/Berlin')", tz("2013-04-01 00:00:00")),
        expect!["2013-03-31T22:00:00Z"],
    )
    .await;
    check(&format!("time_bucket('1 month', {at}, 'Europe/Berlin')"), expect!["2013-06-30T22:00:00Z"]).await;
    check(
        &format!("time_bucket('1 day', {at}, 'Mars/Olympus')"),
        expect![[r#"Execution error: time zone "Mars/Olympus" not recognized"#]],
    )
    .await;
}

#[tokio::test]
async fn integers_have_buckets_too() {
    check("time_bucket(10, 27)", expect!["20"]).await;
    check("time_bucket(10, -1)", expect!["-10"]).await;
    check("time_bucket(10, 27, 5)", expect!["25"]).await;
    check("time_bucket(0, 27)", expect!["Execution error: period must be greater than 0"]).await;
}

#[tokio::test]
async fn bad_widths_are_refused_and_null_gives_null() {
    let at = ts("2013-07-10 17:43:21");
    check(&format!("time_bucket('0 s', {at})"), expect!["Execution error: period must be greater than 0"]).await;
    check(
        &format!("time_bucket('1 month 1 day', {at})"),
        expect!["Execution error: month intervals cannot have day or time component"],
    )
    .await;
    check(
        &format!("coalesce(arrow_cast(time_bucket('1 day', CASE WHEN {at} IS NULL THEN {at} END), 'Utf8'), 'null')"),
        expect!["null"],
    )
    .await;
    check(&format!("coalesce(arrow_cast(time_bucket(NULL, {at}), 'Utf8'), 'null')"), expect!["null"]).await;
}

proptest! {
    /// The bucket is at most the time, less than a width below it, and a whole number of widths from the origin.
    #[test]
    fn a_bucket_holds_its_time(us in -(1i64 << 55)..(1i64 << 55), width in 1i64..(1 << 45), origin in -(1i64 << 50)..(1i64 << 50)) {
        let bucket = floor(us, width, origin).unwrap();
        prop_assert!(bucket <= us && us - bucket < width);
        prop_assert_eq!((i128::from(bucket) - i128::from(origin)).rem_euclid(i128::from(width)), 0);
    }

    /// Counting months one by one from 2000-01 leads to the same bucket.
    #[test]
    fn months_equal_counting(days in -30_000i64..60_000, width in 1u32..40) {
        let us = days * DAY_US + 1;
        let start = NaiveDate::from_ymd_opt(2000, 1, 1).unwrap();
        let date = datetime(us).unwrap().date();
        let mut bucket = start;
        while bucket > date {
            bucket = bucket - Months::new(width);
        }
        while bucket + Months::new(width) <= date {
            bucket = bucket + Months::new(width);
        }
        let expected = bucket.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros();
        prop_assert_eq!(bucket_months(us, i64::from(width), None).unwrap(), expected);
    }
}
