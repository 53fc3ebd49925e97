#!/usr/bin/env bash
# Runs every test. Arguments go to cargo test. A test that hangs is named in the output and ends the run with it.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup-tests.sh
cargo test --workspace --locked --no-run "$@"
exec timeout --kill-after=30 "${ANNAL_TEST_SECONDS_MAX:-2400}" cargo test --workspace --locked --no-fail-fast "$@"
