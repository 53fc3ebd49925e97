"""Reads the files of a manifest (JSON on stdin) with DuckDB and with pyarrow; argv[1] is the data directory.

Prints, for each reader: rows, distinct values of "n", and statements that are there in part."""

import json
import pathlib
import sys

import duckdb
import pyarrow.parquet

ROWS_OF_A_STATEMENT = 10

manifest = json.load(sys.stdin)
data = pathlib.Path(sys.argv[1])
paths = [str(data / file["path"]) for file in manifest["files"]]
sizes = [pathlib.Path(path).stat().st_size for path in paths]
assert sizes == [file["bytes"] for file in manifest["files"]], "sizes differ"

query = """
    SELECT sum(rows)::bigint, sum(numbers)::bigint, count(*) FILTER (rows <> ?)
    FROM (SELECT statement, count(*) AS rows, count(DISTINCT n) AS numbers FROM read_parquet(?) GROUP BY statement)
"""
print("duckdb", *duckdb.execute(query, [ROWS_OF_A_STATEMENT, paths]).fetchone())

rows, numbers, statements = 0, set(), {}
for path, file in zip(paths, manifest["files"]):
    table = pyarrow.parquet.read_table(path, columns=["statement", "n"])
    assert table.num_rows == file["rows"], path
    rows += table.num_rows
    numbers.update(table["n"].to_pylist())
    for statement in table["statement"].to_pylist():
        statements[statement] = statements.get(statement, 0) + 1
print("pyarrow", rows, len(numbers), sum(count != ROWS_OF_A_STATEMENT for count in statements.values()))
