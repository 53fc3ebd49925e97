//! The six questions of the demonstration, in one place so that a test can put them to another database too.

/// A question: statements run in order, each shown with its answer.
#[derive(Debug)]
pub struct Question {
    /// What is asked, in words.
    pub title: &'static str,
    /// How it is asked.
    pub statements: &'static [&'static str],
}

/// Counts one day's departures; asked before and after [`CORRECTION`].
pub const STORM_DAY: &str = "\
SELECT count(*) AS scheduled, count(dep_delay) AS departed, max(dep_delay) AS worst_delay
FROM flights
WHERE sched >= '2013-02-08T00:00:00Z' AND sched < '2013-02-09T00:00:00Z'";

/// A departure of the snowstorm of February that was reported long after its window was sealed.
pub const CORRECTION: &str = "\
INSERT INTO flights (sched, origin, dest, carrier, flight, dep_delay, distance)
VALUES ('2013-02-08T11:15:00Z', 'JFK', 'CLT', 'US', 1791, 1440, 541)";

/// Tells whether [`CORRECTION`] was made before; its answer is one number, 0 or more.
pub const CORRECTION_MADE: &str = "\
SELECT count(*) FROM flights
WHERE sched = '2013-02-08T11:15:00Z' AND carrier = 'US' AND flight = 1791 AND dep_delay = 1440";

/// The questions, in the order they are asked.
pub const QUESTIONS: &[Question] = &[
    Question {
        title: "1. The worst day of the year, hour by hour: how late were departures?",
        statements: &["\
SELECT time_bucket(INTERVAL '1 hour', sched) AS hour, count(*) AS departures, avg(dep_delay) AS mean_delay
FROM flights
WHERE date_trunc('day', sched) = (
    SELECT date_trunc('day', sched) FROM flights GROUP BY 1 ORDER BY avg(dep_delay) DESC NULLS LAST LIMIT 1)
GROUP BY 1
ORDER BY 1"],
    },
    Question {
        title: "2. The last departure of 2013 from each airport",
        statements: &["\
SELECT p.name AS airport, max(f.sched) AS departure, last(f.carrier, f.sched) AS carrier,
       last(f.flight, f.sched) AS flight, last(f.dest, f.sched) AS dest
FROM flights f JOIN airports p ON p.faa = f.origin
WHERE f.sched < '2014-01-01T00:00:00Z' AND f.dep_delay IS NOT NULL
GROUP BY 1
ORDER BY 1"],
    },
    Question {
        title: "3. Does bad visibility delay departures? Flights joined with the weather of their hour and airport",
        statements: &["\
SELECT w.visib AS visibility_miles, count(*) AS departures, avg(f.dep_delay) AS mean_delay
FROM flights f JOIN weather w ON w.origin = f.origin AND w.time = date_trunc('hour', f.sched)
GROUP BY 1
ORDER BY 1"],
    },
    Question {
        title: "4. How late do the airlines depart? Percentiles of the delay in minutes",
        statements: &["\
SELECT a.name AS airline, count(f.dep_delay) AS departures,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY f.dep_delay) AS p50,
       percentile_cont(0.9) WITHIN GROUP (ORDER BY f.dep_delay) AS p90,
       percentile_cont(0.99) WITHIN GROUP (ORDER BY f.dep_delay) AS p99
FROM flights f JOIN airlines a ON a.carrier = f.carrier
GROUP BY 1
ORDER BY 1"],
    },
    Question {
        title: "5. A correction arrives months late, for a window long sealed, and counts at once",
        statements: &[STORM_DAY, CORRECTION, STORM_DAY],
    },
    Question {
        title: "6. One day of the year: which time splits and segments are read at all?",
        statements: &["\
EXPLAIN SELECT carrier, count(*) AS departures, avg(dep_delay) AS mean_delay
FROM flights
WHERE sched >= '2013-07-04T00:00:00Z' AND sched < '2013-07-05T00:00:00Z'
GROUP BY 1
ORDER BY 1"],
    },
];
