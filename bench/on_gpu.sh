#!/usr/bin/env bash
# Checks and measures xpnet on a machine with an NVIDIA GPU, in about eight minutes: `bench/on_gpu.sh FOLDER [STAGE…]`.
# Every stage has a log and a time limit of its own and writes into FOLDER; a stage that fails does not end the others.
# Exit code 1 if one failed. PYTHON names the interpreter (python3), TINY=1 takes tiny shapes, to see that all of it runs.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
[ $# -gt 0 ] || { echo "usage: $0 FOLDER [STAGE…]" >&2; exit 2; }
mkdir -p "$1" && folder=$(cd "$1" && pwd) || exit 2
shift
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 XPNET_REQUIRE_GPU=1
tiny=${TINY:+--tiny}
# What fills the device's memory, or measures how much is free, runs alone, after the other tests.
fills_memory=(tests/training/test_out_of_memory.py tests/backend/test_memory.py tests/backend/test_graphs.py)

machine() { nvidia-smi; "$python" -m training.cli devices --json >"$folder/devices.json"; }
tests() { "$python" -m pytest -q -n "${WORKERS:-8}" -m gpu "${fills_memory[@]/#/--ignore=}" tests; }
memory() { "$python" -m pytest -q -m gpu "${fills_memory[@]}"; }
check() { "$python" -m training.cli check --json >"$folder/check.json"; }
train() { "$python" -m training.cli train --device cuda --quiet --out "$folder/run" ${tiny:+--model TwoLayerNet --epochs 1}; }
memcheck() { compute-sanitizer --tool memcheck --error-exitcode 3 "$python" -m pytest -q -m gpu tests/kernels; }
racecheck() { compute-sanitizer --tool racecheck --error-exitcode 3 "$python" -m pytest -q -m gpu tests/kernels; }
summary() { "$python" -m training.cli summary --measure --device cuda ${tiny:+--model TwoLayerNet}; }
ncu() { "$python" -m training.cli profile --tool ncu --device cuda --steps 1 --warmup 2 --report "$folder/ncu"; }
host() { "$python" -m bench host ${TINY:+--batch 2 --samples 2} --json "$folder/host.json"; }
kernels() { "$python" -m bench kernels $tiny --repeats 20 --block 128,512 --json "$folder/kernels.json"; }

limits="machine=60 tests=240 memory=60 check=90 train=60 summary=30 memcheck=120 racecheck=120 ncu=90 host=60 kernels=180"
stages=("$@")
[ $# -gt 0 ] || stages=(machine tests memory check train summary ncu host kernels)
failed=()
for stage in "${stages[@]}"; do
    limit=$(grep -o "\b$stage=[0-9]*" <<<"$limits" | cut -d= -f2) || { echo "no stage '$stage': $limits" >&2; exit 2; }
    start=$SECONDS
    # A function cannot be given to `timeout`: the stage runs in a shell of its own, which can be stopped with all it started.
    code=0
    timeout --kill-after=5 "$limit" bash -c "$(declare -f "$stage"); $(declare -p python folder tiny fills_memory); $stage" \
        >"$folder/$stage.log" 2>&1 || code=$?
    printf '%-10s %4d s  exit %d  %s\n' "$stage" "$((SECONDS - start))" "$code" "$(tail -n 1 "$folder/$stage.log")"
    [ "$code" = 0 ] || failed+=("$stage")
done
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
