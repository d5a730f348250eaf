#!/usr/bin/env bash
# One command of a lease, on a bare machine with JAX, from the root of the project:
#     bash tools/gpu/lease.sh SECONDS MINUTES LEASE OUT [options of train_jax.py]
# trains the plan in LEASE, a folder by prepare.py, for SECONDS at most, of the MINUTES that all commands on it have together, and
# leaves in OUT what is to be brought back: lease.tar.00, .01, ... of 15 MiB at most, and the log. Ends well whatever happened.
# The home directory is used where it lasts until the next command: later ones may then bring other tiles alone, or nothing.
set -uo pipefail
seconds=$1 minutes=$2 lease=$3 out=$(realpath -m "$4") project=$PWD
shift 4
work=${DRSAN_WORK:-$HOME/drsan}  # in/: what was uploaded, out/: what the training left
mkdir -p "$work/in" "$work/out" "$out"
cp -r "$lease/." "$work/in"
cd "$work" || exit  # so that what is kept of the training names no folder of this machine
if [ -d in/back ] && [ ! -e out/progress.json ]; then cp -r in/back/. out; fi
timeout -k 15 "$seconds" python3 "$project/tools/gpu/train_jax.py" --plan in/plan.json --data in/tiles --out out \
    --minutes "$minutes" "$@" 2>&1 | tee -a out/train.txt
cp out/train.txt "$out"
tar -C out -cf - --exclude ./cache --exclude '*.tmp' . | split -b 15M -d - "$out/lease.tar."
ls -l "$out"
