#!/usr/bin/env bash
# One command of a lease, on a bare machine with JAX, from the root of the project:
#     bash tools/gpu/lease.sh SECONDS MINUTES LEASE OUT [options of train_jax.py]
# trains the plan in LEASE, a folder by prepare.py, for SECONDS at most, of the MINUTES that all commands on it have together, and
# leaves in OUT what is to be brought back: lease.tar.00, .01, ... of 15 MiB at most, and the log. Ends well whatever happened.
# The home directory is used where it lasts until the next command: later ones may then bring other tiles alone, or nothing.
set -uo pipefail
seconds=$1 minutes=$2 lease=$3 out=$4
shift 4
work=${DRSAN_WORK:-$HOME/drsan}  # in/: what was uploaded, out/: what the training left
mkdir -p "$work/in" "$work/out" "$out"
cp -r "$lease/." "$work/in"
if [ -d "$work/in/back" ] && [ ! -e "$work/out/progress.json" ]; then cp -r "$work/in/back/." "$work/out"; fi
timeout -k 15 "$seconds" python3 tools/gpu/train_jax.py --plan "$work/in/plan.json" --data "$work/in/tiles" \
    --out "$work/out" --minutes "$minutes" "$@" 2>&1 | tee -a "$work/out/train.txt"
cp "$work/out/train.txt" "$out"
tar -C "$work/out" -cf - --exclude ./cache --exclude '*.tmp' . | split -b 15M -d - "$out/lease.tar."
ls -l "$out"
