#!/usr/bin/env bash
# Puts known bugs back, one at a time, and runs seeds of the simulation until each is found. Its exit code is the number of those that no
# seed finds. A seed that only takes too long has found nothing.
# Arguments: seeds at most (200), then mutants (all).
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-200}
shift $(($# > 0 ? 1 : 0))
mutants=("$@")
if [ ${#mutants[@]} -eq 0 ]; then
    mutants=("vote not synced" "acknowledged before sync" "lease read" "applied twice" "purged early" "torn snapshot" "directory not synced"
        "rot taken for a torn tail" "member id reuse" "hole at flush" "duplicate at flush" "apply depends on the replica" "lease forgotten")
fi
export RUSTFLAGS="${RUSTFLAGS:-} --cfg tokio_unstable"
simulation=(cargo test -q --locked --profile simulation -p simulation --features mutants --test it)
"${simulation[@]}" --no-run
missed=0
printf '%-28s %-6s %s\n' mutant seed 'what the simulation says'
for mutant in "${mutants[@]}"; do
    first=0
    found=
    while [ -z "$found" ] && [ "$first" -lt "$seeds" ]; do
        said=$(ANNAL_MUTANT=$mutant ANNAL_SIM_FIRST=$first ANNAL_SIM_SEEDS=$((seeds - first)) \
            "${simulation[@]}" three_nodes -- --nocapture 2>&1) && break
        failure=$(grep -m 1 -o 'seed [0-9]* fails: .*' <<<"$said") || break
        seed=$(cut -d ' ' -f 2 <<<"$failure")
        case $failure in
        *'no end within'*) first=$((seed + 1)) ;;
        *) found=$seed ;;
        esac
    done
    if [ -n "$found" ]; then
        printf '%-28s %-6s %s\n' "$mutant" "$found" "${failure#*fails: }"
    else
        printf '%-28s %-6s %s\n' "$mutant" - "not found by $seeds seeds"
        missed=$((missed + 1))
    fi
done
exit "$missed"
