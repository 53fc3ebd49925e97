"""What applications do with psycopg; argv[1] is the connection string. Fails by assertion."""

import datetime
import decimal
import sys
import uuid

import psycopg
from psycopg.types.json import Json, Jsonb

UTC = datetime.timezone.utc
START = datetime.datetime(2026, 1, 1, tzinfo=UTC)
ROWS = [(START + datetime.timedelta(minutes=n), f"dev-{n % 3}", n * 0.5, n, n % 2 == 0, None) for n in range(100)]

with psycopg.connect(sys.argv[1]) as connection:
    connection.autocommit = True
    connection.execute("SET timezone = 'UTC'")
    connection.execute(
        "CREATE TABLE m (ts timestamptz NOT NULL, dev text, v double precision, n bigint, even boolean, note text)"
    )
    connection.autocommit = False

    # Parameters, many rows, in one transaction.
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO m VALUES (%s, %s, %s, %s, %s, %s)", ROWS[:50])
        assert cursor.rowcount == 50, cursor.rowcount
    assert connection.execute("SELECT count(*) FROM m").fetchone() == (50,), "own rows are seen"
    connection.rollback()
    assert connection.execute("SELECT count(*) FROM m").fetchone() == (0,), "they are gone"
    connection.commit()

    # COPY in text and out again.
    with connection.cursor() as cursor:
        with cursor.copy("COPY m FROM STDIN") as copy:
            for row in ROWS:
                copy.write_row(row)
        connection.commit()
        with cursor.copy("COPY (SELECT n FROM m ORDER BY n) TO STDOUT") as copy:
            assert [int(n) for (n,) in copy.rows()] == list(range(100))

    # Values come back as they went in, in text and in binary.
    for binary in (False, True):
        with connection.cursor(binary=binary) as cursor:
            cursor.execute("SELECT * FROM m WHERE dev = %s AND ts < %s ORDER BY ts", ("dev-1", ROWS[20][0]))
            assert cursor.fetchall() == [row for row in ROWS[:20] if row[1] == "dev-1"], binary
            cursor.execute(
                "SELECT DATE '2026-02-03', 1.50::numeric(10,2), 7::smallint, 8::integer, NULL::text, 'ä'::text, 1.5::real"
            )
            expected = (datetime.date(2026, 2, 3), decimal.Decimal("1.50"), 7, 8, None, "ä", 1.5)
            assert cursor.fetchone() == expected, binary

    connection.commit()

    # Outside a block many statements are one transaction, and what is wrong with one of them is told in its place.
    connection.autocommit = True
    connection.execute("CREATE TABLE keyed (id integer PRIMARY KEY)")
    with connection.cursor() as cursor:
        try:
            cursor.executemany("INSERT INTO keyed VALUES (%s)", [(1,), (2,), (1,), (3,)])
            raise AssertionError("two rows of one key")
        except psycopg.errors.UniqueViolation as refused:
            told = refused.diag
            assert (told.schema_name, told.table_name, told.constraint_name) == ("public", "keyed", "keyed_pkey")
        assert connection.execute("SELECT count(*) FROM keyed").fetchone() == (0,)
        cursor.executemany("INSERT INTO keyed VALUES (%s)", [(n,) for n in range(50)])
    assert connection.execute("SELECT count(*) FROM keyed").fetchone() == (50,)
    connection.autocommit = False

    # What refuses a row has fields of its own.
    connection.autocommit = True
    connection.execute("CREATE TABLE ruled (id integer PRIMARY KEY, n integer NOT NULL CONSTRAINT positive CHECK (n > 0))")
    for statement, subject in [
        ("INSERT INTO ruled VALUES (1, NULL)", ("ruled", "n", None)),
        ("INSERT INTO ruled VALUES (1, 0)", ("ruled", None, "positive")),
    ]:
        try:
            connection.execute(statement)
            raise AssertionError(statement)
        except psycopg.errors.IntegrityError as refused:
            told = refused.diag
            assert (told.table_name, told.column_name, told.constraint_name) == subject, statement
    connection.autocommit = False

    # A prepared statement is used again and again.
    for n in range(10):
        query = "SELECT v FROM m WHERE n = %s"
        assert connection.execute(query, (n,), prepare=True).fetchone() == (n * 0.5,)
    connection.commit()

    # Types with a form of their own: as parameters of both forms, and back.
    connection.autocommit = True
    connection.execute("CREATE TABLE forms (id uuid, b bytea, j json, d jsonb, t time)")
    connection.autocommit = False
    form = (uuid.UUID(int=7), b"\x00\xff", [1, 2], {"a": [None, "é"], "b": 1.5}, datetime.time(23, 59, 1, 5))
    for marks in ("%s, %s, %s, %s, %s", "%b, %b, %b, %b, %b", "%t, %t, %t, %t, %t"):
        values = (form[0], form[1], Json(form[2]), Jsonb(form[3]), form[4])
        connection.execute(f"INSERT INTO forms VALUES ({marks})", values)
        connection.execute(f"INSERT INTO forms SELECT {marks}", values)
    with connection.cursor() as cursor:
        with cursor.copy("COPY forms FROM STDIN WITH (FORMAT binary)") as copy:
            copy.set_types(["uuid", "bytea", "json", "jsonb", "time"])
            copy.write_row((form[0], form[1], Json(form[2]), Jsonb(form[3]), form[4]))
    for binary in (False, True):
        with connection.cursor(binary=binary) as cursor:
            cursor.execute("SELECT * FROM forms WHERE id = %s AND b = %s AND t = %s", (form[0], form[1], form[4]))
            assert cursor.fetchall() == [form] * 7, binary
    connection.commit()

    # Arrays and intervals, likewise; a list is what ANY takes.
    connection.autocommit = True
    connection.execute("CREATE TABLE lists (n int[], t text[], f float8[], s interval, d timestamptz[])")
    connection.autocommit = False
    moment = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc)
    lists = ([1, None, -3], ["a b", "", None, "NULL", '"{,}'], [0.1, 2.0], datetime.timedelta(days=2, seconds=3), [moment])
    for marks in ("%s, %s, %s, %s, %s", "%b, %b, %b, %b, %b", "%t, %t, %t, %t, %t"):
        connection.execute(f"INSERT INTO lists VALUES ({marks})", lists)
    with connection.cursor() as cursor:
        with cursor.copy("COPY lists FROM STDIN WITH (FORMAT binary)") as copy:
            copy.set_types(["int4[]", "text[]", "float8[]", "interval", "timestamptz[]"])
            copy.write_row(lists)
    for binary in (False, True):
        with connection.cursor(binary=binary) as cursor:
            cursor.execute("SELECT * FROM lists WHERE s = %s AND t = %s", (lists[3], lists[1]))
            assert cursor.fetchall() == [lists] * 4, binary
            cursor.execute("SELECT count(*) FROM m WHERE n = ANY(%s)", ([3, 5, 7, 1000],))
            assert cursor.fetchone() == (3,), binary
            numbers = [decimal.Decimal("3"), decimal.Decimal("5.5"), None]
            cursor.execute("SELECT count(*) FROM m WHERE n = ANY(%s)", (numbers,))
            assert cursor.fetchone() == (1,), binary
            cursor.execute("SELECT %s <> ALL(%s), %s IN (SELECT n FROM m) OR %s = 1", (4, numbers, 3, 2))
            assert cursor.fetchone() == (None, True), binary
            cursor.execute("SELECT ARRAY(SELECT n FROM m WHERE n < %s ORDER BY n DESC), %s LIKE ANY(%s)", (3, "ab", ["b%", "a%"]))
            assert cursor.fetchone() == ([2, 1, 0], True), binary
    connection.commit()

    # Errors have their class, and the connection is usable afterwards.
    for query, error in [
        ("SELECT * FROM nosuch", psycopg.errors.UndefinedTable),
        ("SELECT nosuch FROM m", psycopg.errors.UndefinedColumn),
        ("SELECT 1 / 0", psycopg.errors.DivisionByZero),
        ("SELEC 1", psycopg.errors.SyntaxError),
        ("INSERT INTO m (dev) VALUES ('x')", psycopg.errors.NotNullViolation),
    ]:
        try:
            connection.execute(query)
        except error:
            connection.rollback()
        else:
            raise AssertionError(query)

    # Cursors of the server: with parameters, back and forth, and beyond their transaction.
    with connection.cursor("some rows") as cursor:
        cursor.itersize = 7
        cursor.execute("SELECT n, v FROM m WHERE n < %s ORDER BY n", (30,))
        assert [column.name for column in cursor.description] == ["n", "v"]
        assert cursor.fetchone() == (0, 0.0)
        assert cursor.fetchmany(3) == [(n, n * 0.5) for n in (1, 2, 3)]
        assert [n for (n, _) in cursor] == list(range(4, 30))
    with connection.cursor("back", scrollable=True, binary=True) as cursor:
        cursor.execute("SELECT n FROM m ORDER BY n")
        cursor.scroll(99, mode="absolute")
        assert cursor.fetchall() == [(99,)]
        cursor.scroll(0, mode="absolute")
        assert cursor.fetchone() == (0,)
    held = connection.cursor("held", withhold=True)
    held.execute("SELECT n FROM m ORDER BY n")
    assert held.fetchone() == (0,)
    connection.commit()
    assert [n for (n,) in held.fetchall()] == list(range(1, 100))
    held.close()
    connection.commit()

    # Pipelines, and rows that are fetched as they come.
    with connection.pipeline():
        answers = [connection.execute("SELECT %s::bigint + 1", (n,)) for n in range(20)]
    assert [answer.fetchone() for answer in answers] == [(n + 1,) for n in range(20)]
    connection.commit()
    with connection.cursor() as cursor:
        assert [n for (n,) in cursor.stream("SELECT n FROM m ORDER BY n")] == list(range(100))
