#!/usr/bin/env bash
# Runs every test: without arguments those of the workspace, then the simulation as scripts/simulate.sh does. Arguments go to cargo test.
# A test that hangs is named in the output and ends the run with it.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup-tests.sh
what=("$@")
[ $# -gt 0 ] || what=(--exclude simulation)
cargo test --workspace --locked --no-run "${what[@]}"
timeout --kill-after=30 "${ANNAL_TEST_SECONDS_MAX:-2400}" cargo test --workspace --locked --no-fail-fast "${what[@]}"
[ $# -gt 0 ] || scripts/simulate.sh
