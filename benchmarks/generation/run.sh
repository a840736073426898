#!/usr/bin/env bash
# All results of this folder; about six hours of one core, most of it optimisation. Each line can be run by itself.
#   MOLCMIM_DATA=...                  with moses/ below it: the molsets 0.3.1 wheel (pip download molsets==0.3.1 --no-deps)
#   CORPUS=...                        token shards of the pretraining corpus (the two commands are in docs/training.md)
set -euo pipefail
cd "$(dirname "$0")"
: "${CORPUS:?a directory of token shards}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
known=samples/known.npy
mkdir -p samples
if [ ! -e "$known" ]; then
    python -c 'import sys; from molcmim.metrics.known import KnownSet; KnownSet.from_corpus(sys.argv[1]).save(sys.argv[2])' \
        "$CORPUS" "$known"
fi

python interpolation.py --corpus "$CORPUS"
python neighbours.py --corpus "$CORPUS" --known "$known"
python sampling.py --corpus "$CORPUS" --known "$known"
for method in cma random; do
    python optimization.py qed --method $method --corpus "$CORPUS" --dtype bfloat16
done
python optimization.py plogp --method cma --delta 0.4 --budget 500 --corpus "$CORPUS" --dtype bfloat16
python optimization.py plogp --method cma --delta 0.6 --budget 500 --corpus "$CORPUS" --dtype bfloat16
python optimization.py plogp --method random --delta 0.4,0.6 --budget 500 --corpus "$CORPUS" --dtype bfloat16
python speed.py --corpus "$CORPUS"
python rescore.py --corpus "$CORPUS"
python report.py
