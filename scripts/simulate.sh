#!/usr/bin/env bash
# Runs the simulation: ANNAL_SIM_SEEDS seeds of three nodes (300) from ANNAL_SIM_FIRST (0), or the one ANNAL_SIM_SEED, and the seeds of one
# node. Arguments go to the test: scripts/simulate.sh three.
#
# Its dependencies are built once more, for itself: optimised a little, and with a tokio whose choices follow a seed, which the product does
# not use.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS="${RUSTFLAGS:-} --cfg tokio_unstable"
export ANNAL_SIM_SEEDS="${ANNAL_SIM_SEEDS:-300}"
cargo test --locked --profile simulation -p simulation --no-run
exec timeout --kill-after=30 "${ANNAL_TEST_SECONDS_MAX:-2400}" \
    cargo test --locked --profile simulation -p simulation -- --nocapture "$@"
