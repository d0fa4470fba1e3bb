#!/usr/bin/env bash
# Checks and measures xpnet on a machine with an NVIDIA GPU, in at most eight minutes: `bench/on_gpu.sh FOLDER [STAGE…]`.
# Every stage has a log and a time limit of its own and writes into FOLDER; a stage that fails does not end the others.
# At the end FOLDER has table.txt and results.json, all figures in one. Exit code 1 if a stage failed, with its name in
# the last line. PYTHON names the interpreter (python3); TINY=1 takes tiny shapes and few tests, to see that all of it
# runs, and SLOWNESS=6 six times the time. What needs a tool that is not there (ncu, nsys, compute-sanitizer) says so and does not fail.
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
tested=(tests "${fills_memory[@]/#/--ignore=}")
workers=(-n "${WORKERS:-8}")
few=()
repeats=20
if [ -n "$tiny" ]; then
    tested=(tests/kernels/test_dropout.py tests/backend/test_tf32.py)
    workers=()
    fills_memory=(tests/backend/test_memory.py)
    few=(--model TwoLayerNet)
    repeats=1
fi

has() { type -P "$1" >/dev/null || { echo "$1 is not installed: left out"; return 1; }; }
profile() { "$python" -m training.cli profile --tool "$1" --device cuda --steps 1 --warmup 2 --report "$folder/$1" "${few[@]}"; }

machine() {
    has nvidia-smi && nvidia-smi
    "$python" -m training.cli devices --json >"$folder/machine.json"
}
tests() { "$python" -m pytest -q "${workers[@]}" -m gpu "${tested[@]}"; }
memory() { "$python" -m pytest -q -m gpu "${fills_memory[@]}"; }
check() { "$python" -m training.cli check ${tiny:+--steps 1} --json >"$folder/check.json"; }
train() { rm -rf "$folder/run" && "$python" -m training.cli train --device cuda --quiet --out "$folder/run" "${few[@]}" ${tiny:+--epochs 1}; }
summary() { "$python" -m training.cli summary --measure --device cuda "${few[@]}"; }
ncu() { ! has ncu || profile ncu; }
nsys() { ! has nsys || profile nsys; }
host() { "$python" -m bench host ${tiny:+"${few[@]}" --batch 2 --samples 2} --json "$folder/host.json"; }
steps() { "$python" -m bench steps ${tiny:+"${few[@]}" --batch 2 --count 4} --json "$folder/steps.json"; }
kernels() { "$python" -m bench kernels $tiny --repeats "$repeats" --block 256 --seconds 40 --json "$folder/kernels.json"; }
convolutions() { "$python" -m bench convolutions $tiny --repeats "$repeats" --seconds 45 --json "$folder/convolutions.json"; }
# Not among the default ones: each takes minutes.
sanitizer() { ! has compute-sanitizer || compute-sanitizer --tool "$1" --error-exitcode 3 "$python" -m pytest -q -m gpu tests/kernels; }
memcheck() { sanitizer memcheck; }
racecheck() { sanitizer racecheck; }

# Seconds. Those of the default stages add up to less than eight minutes.
declare -A limits=([machine]=15 [tests]=115 [memory]=25 [check]=35 [train]=20 [summary]=15 [ncu]=40 [nsys]=30 [host]=30
    [steps]=45 [kernels]=50 [convolutions]=55 [memcheck]=120 [racecheck]=120)
stages=("$@")
[ $# -gt 0 ] || stages=(machine tests memory check train summary ncu nsys host steps kernels convolutions)
slowness=${SLOWNESS:-1}
[[ $slowness =~ ^[1-9][0-9]*$ ]] || { echo "SLOWNESS is a whole number of at least 1, not '$slowness'" >&2; exit 2; }
for stage in "${stages[@]}"; do
    [ -n "${limits[$stage]:-}" ] || { echo "no stage '$stage'; there are: ${!limits[*]}" >&2; exit 2; }
done
failed=()
: >"$folder/stages.tsv"
for stage in "${stages[@]}"; do
    start=$SECONDS
    rm -f "$folder/$stage".{json,log}  # of an earlier run into this folder
    # A function cannot be given to `timeout`: the stage runs in a shell of its own, which can be stopped with all it
    # started.
    code=0
    timeout --kill-after=5 "$((limits[$stage] * slowness))" \
        bash -c "$(declare -f); $(declare -p python folder tiny tested workers few repeats fills_memory); $stage" \
        >"$folder/$stage.log" 2>&1 || code=$?
    printf '%-12s %4d s  exit %d  %s\n' "$stage" "$((SECONDS - start))" "$code" "$(tail -n 1 "$folder/$stage.log")"
    printf '%s\t%d\t%d\n' "$stage" "$((SECONDS - start))" "$code" >>"$folder/stages.tsv"
    [ "$code" = 0 ] || failed+=("$stage")
done
"$python" -m bench gpu-table "$folder" || failed+=(table)
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
