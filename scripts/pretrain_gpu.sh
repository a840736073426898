#!/usr/bin/env bash
# One leg of a GPU pretraining; call it again for the next leg, which goes on exactly where this one stopped.
#
#   bash scripts/pretrain_gpu.sh CORPUS.xz RUN_DIR OUT_DIR [key=value ...]
#
# CORPUS.xz  what `molcmim corpus pack` wrote; unpacked once into RUN_DIR/corpus
# RUN_DIR    local disk of the GPU machine: corpus, checkpoint, log, compiled kernels. Keep it between legs.
# OUT_DIR    what to bring home after each leg: the averaged weights in parts with checksums, log.jsonl, log.txt
# key=value  fields of the configuration to set, e.g. batch_size=2048 (device=cpu: rehearsal without a GPU)
#
# Environment: PYTHON (python3), CONFIG (configs/pretrain_gpu.yaml), PART_MIB (16), LEG_MINUTES (9: the whole call,
# start-up and export included), END_SECONDS (45: how much of it to keep for checkpoint, validation and export).
# Needs torch, numpy, safetensors, pyyaml and tqdm; no rdkit, no installation, no network.
set -euo pipefail
if [ $# -lt 3 ]; then
  sed -n '2,14p' "$0" >&2
  exit 2
fi
SECONDS=0
corpus=$(realpath "$1") run=$(realpath -m "$2") out=$(realpath -m "$3")
shift 3
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export TORCHINDUCTOR_CACHE_DIR="$run/compiled/inductor" TRITON_CACHE_DIR="$run/compiled/triton"  # later legs start fast
export PYTORCH_CUDA_ALLOC_CONF="${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}"  # batches differ in length

machine=$("$python" - "$@" <<'PY'
import importlib.util, os, shutil, sys
if sys.version_info < (3, 11):
    sys.exit(f"Python 3.11 or newer expected, got {sys.version.split()[0]}: set PYTHON")
packages = {"torch": "torch", "numpy": "numpy", "safetensors": "safetensors", "yaml": "pyyaml", "tqdm": "tqdm"}
missing = [wheel for name, wheel in packages.items() if importlib.util.find_spec(name) is None]
if missing:
    sys.exit(f"missing Python packages: bring the wheels of {', '.join(missing)}, or name another PYTHON")
import torch
if not hasattr(torch.optim, "Muon"):
    sys.exit(f"torch 2.9 or newer expected (it has Muon), got {torch.__version__}")
if torch.cuda.is_available():
    gpu = torch.cuda.get_device_properties(0)
    where = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"
elif "device=cpu" in sys.argv:
    where = "rehearsal on the CPU"
else:
    sys.exit(f"torch {torch.__version__} sees no GPU; for a rehearsal on the CPU, add device=cpu")
compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
if compiler is None and "compile=false" not in sys.argv:
    sys.exit("torch.compile needs a C compiler (cc, gcc or clang), and there is none; add compile=false to go without")
print(f"Python {sys.version.split()[0]}, torch {torch.__version__}, {where}")
PY
)
mkdir -p "$run" "$out"
echo "$machine" | tee -a "$run/log.txt"
if [ ! -e "$run/corpus/corpus.json" ]; then
  "$python" -c 'import sys; from molcmim.corpus_pack import unpack; print(unpack(sys.argv[1], sys.argv[2], True))' \
    "$corpus" "$run/corpus"
fi
bring_weights() {
  "$python" -m molcmim.weights_parts split "$run/export" "$out" --part-mib "${PART_MIB:-16}"
}
bring_logs() {  # also after a failure
  for log in log.jsonl log.txt; do
    if [ -e "$run/$log" ]; then cp "$run/$log" "$out/$log"; fi
  done
}
trap bring_logs EXIT
if [ -d "$run/export" ]; then bring_weights; fi  # if this leg is killed, OUT_DIR holds the last one's weights

# SIGTERM asks the trainer for a checkpoint, a validation and an export. It goes to the trainer alone (--foreground):
# its loader processes must go on until then.
seconds=$(awk -v leg="${LEG_MINUTES:-9}" -v end="${END_SECONDS:-45}" -v used="$SECONDS" \
  'BEGIN { left = int(60 * leg - end - used); print (left > 1 ? left : 1) }')
echo "ready after $SECONDS s; training stops $seconds s from now at the latest"
timeout --foreground --preserve-status --signal=TERM "$seconds" \
  "$python" -m molcmim.train "${CONFIG:-$root/configs/pretrain_gpu.yaml}" --resume \
  corpus="$run/corpus" output="$run" "$@" 2>&1 | tee -a "$run/log.txt"
bring_weights
"$python" - "$run/log.jsonl" <<'PY'
import json, sys
with open(sys.argv[1], encoding="utf-8") as file:
    records = [json.loads(line) for line in file]
last = records[-1]
schedule = [record for record in records if record["event"] == "start"][-1]["config"]["schedule"]
steps, minutes = schedule["max_steps"], schedule["max_minutes"]
done = last["step"] >= steps if steps is not None else last["seconds"] >= 60 * minutes
total = f"of {steps} steps" if steps is not None else f"of {minutes:g} minutes"
print(f"step {last['step']}, {last['molecules'] / 1e6:.2f} M molecules, {last['seconds'] / 60:.2f} minutes of training {total}:",
      "the schedule is complete" if done else "call again to go on")
PY
bring_logs
echo "leg took $SECONDS s; in OUT_DIR: $(find "$out" -maxdepth 1 -type f | wc -l) files (a larger PART_MIB makes fewer)"
