#!/usr/bin/env bash
# One leg of a GPU pretraining; call it again for the next leg, which goes on exactly where this one stopped.
#
#   bash scripts/pretrain_gpu.sh CORPUS.xz RUN_DIR OUT_DIR [key=value ...]
#
# CORPUS.xz  what `molcmim corpus pack` wrote (under 20 MiB); unpacked once into RUN_DIR/corpus
# RUN_DIR    local disk of the GPU machine: corpus, checkpoint, log. Keep it between legs.
# OUT_DIR    what to bring home after each leg: the averaged weights in parts with checksums, and the log
#
# Environment: PYTHON (python3), CONFIG (configs/pretrain_gpu.yaml), LEG_MINUTES (8.0: training stops then; unpacking,
# compiling and export come on top, so that a leg stays under 10 minutes), PART_MIB (16).
# Needs torch, numpy, safetensors, pyyaml and tqdm; no rdkit, no installation, no network.
set -euo pipefail
if [ $# -lt 3 ]; then
  sed -n '2,13p' "$0" >&2
  exit 2
fi
corpus=$(realpath "$1") run=$(realpath -m "$2") out=$(realpath -m "$3")
shift 3
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
python=${PYTHON:-python3}

"$python" - <<'PY'
import importlib.util, sys
missing = [n for n in ("torch", "numpy", "safetensors", "yaml", "tqdm") if importlib.util.find_spec(n) is None]
if missing:
    sys.exit(f"missing Python packages: {', '.join(missing)} (bring wheels; yaml is the package pyyaml)")
import torch
where = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU: rehearsal on the CPU"
print(f"torch {torch.__version__}, {where}")
PY

mkdir -p "$run" "$out"
if [ ! -e "$run/corpus/corpus.json" ]; then
  "$python" -c 'import sys; from molcmim.corpus_pack import unpack; print(unpack(sys.argv[1], sys.argv[2], True))' \
    "$corpus" "$run/corpus"
fi
"$python" -m molcmim.train "${CONFIG:-$root/configs/pretrain_gpu.yaml}" --resume \
  corpus="$run/corpus" output="$run" wall_minutes="${LEG_MINUTES:-8.0}" "$@"
"$python" -m molcmim.weights_parts split "$run/export" "$out" --part-mib "${PART_MIB:-16}"
cp "$run/log.jsonl" "$out/log.jsonl"
