#!/usr/bin/env bash
# Runs every test. Arguments go to cargo test.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup-tests.sh
exec cargo test --workspace --locked --no-fail-fast "$@"
