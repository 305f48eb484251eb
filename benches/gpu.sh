#!/bin/sh
# Speed on a GPU, within two minutes: invert and edit beside diffusers' loops and the release's, at 64 and at 256 pixels.
# Needs torch, diffusers and safetensors. One line of JSON for each arm in $OUT/engine.jsonl; also the matmul ceiling.
set -eu
cd "$(dirname "$0")/.."
OUT=${OUT:-out/gpu}
mkdir -p "$OUT"
export BOUNDARYFLOW_DEVICE="${BOUNDARYFLOW_DEVICE:-cuda}"
python=${PYTHON:-python3}
: > "$OUT/engine.jsonl"
"$python" -m benches.engine.arms ceiling | tee -a "$OUT/engine.jsonl"
for model in avatars64:40 paper256:5; do
    for arm in release diffusers "diffusers bfloat16" ours; do
        "$python" -m benches.engine.arms "$arm" "${model%:*}" "${model#*:}" "${SECONDS_EACH:-3}" | tail -n 1 |
            tee -a "$OUT/engine.jsonl"
    done
done
