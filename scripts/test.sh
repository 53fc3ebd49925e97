#!/usr/bin/env bash
# Runs every test: without arguments those of the workspace, then the simulation as scripts/simulate.sh does. Arguments go to cargo test.
# A test that hangs is named in the output and ends the run with it.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup-tests.sh
# Some machines that only build let nobody make a network.
if [ -z "${ANNAL_TEST_WITHOUT_NAMESPACES:-}" ] && ! { ip netns add annal-probe && ip netns del annal-probe; }; then
    echo "== NOT TESTED: partitions of the network, because network namespaces cannot be made here"
    export ANNAL_TEST_WITHOUT_NAMESPACES=1
fi
what=("$@")
[ $# -gt 0 ] || what=(--exclude simulation)
cargo test --workspace --locked --no-run "${what[@]}"
timeout --kill-after=30 "${ANNAL_TEST_SECONDS_MAX:-2400}" cargo test --workspace --locked --no-fail-fast "${what[@]}"
[ $# -gt 0 ] || scripts/simulate.sh
