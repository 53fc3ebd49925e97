#!/bin/sh
# Puts known bugs back, one at a time, and runs seeds of the simulation until each is found.
# Arguments: seeds at most (200).
set -eu
cd "$(dirname "$0")/.."
seeds=${1:-200}
cargo test -q -p simulation --features mutants --test it --no-run
printf '%-32s %s\n' mutant 'found by seed'
missed=0
for mutant in "vote not synced" "acknowledged before sync" "applied twice" "purged early" "hole at flush" "duplicate at flush" \
    "directory not synced" "torn snapshot" "apply depends on the replica"; do
    found=-
    seed=0
    while [ "$seed" -lt "$seeds" ]; do
        if ! ANNAL_MUTANT=$mutant ANNAL_SIM_SEED=$seed timeout 120 \
            cargo test -q -p simulation --features mutants --test it three >/dev/null 2>&1; then
            found=$seed
            break
        fi
        seed=$((seed + 1))
    done
    printf '%-32s %s\n' "$mutant" "$found"
    [ "$found" != - ] || missed=$((missed + 1))
done
exit "$missed"
