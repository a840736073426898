#!/usr/bin/env bash
# All results of this folder; about two hours of an idle machine with two cores. Each line can be run by itself, and goes
# on where it was stopped.
#   MOLECULES=...                     a file of more than a million different SMILES, one a line; also .gz or .xz
set -euo pipefail
cd "$(dirname "$0")"
: "${MOLECULES:?a file of SMILES}"

python rates.py --molecules "$MOLECULES"
python number_formats.py --molecules "$MOLECULES"
[ -d scratch/light ] || python light_model.py scratch/light
python memory.py --molecules "$MOLECULES" --model scratch/light --one-shard
python hostile_rows.py --molecules "$MOLECULES" --model scratch/light
python hostile_rows.py --molecules "$MOLECULES" --work scratch/shipped --rows 50000 --crashes 2 --timeouts 1
python plan.py
python report.py
