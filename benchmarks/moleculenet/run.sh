#!/usr/bin/env bash
# All results of this folder. Stopped and started again, it goes on where it was.
#   MOLCMIM_DATA=... benchmarks/moleculenet/run.sh        # with moleculenet/ and peers/ below it
set -euo pipefail
out=$(dirname "$0")/results
all=molcmim-tiny-chem:all,molcmim-tiny:all,classical,peers
few=molcmim-tiny-chem:both,molcmim-tiny:both,rdkit2d,ecfp4-count,floor,peer:minimol,peer:chemnet

run() { molcmim benchmark --tasks small --features "$1" --protocol "$2" --heads "$3" --out "$out"; }

run "$all" random5 svm,ridge,knn,knn-cosine,xgb
run "$all" scaffold5,scaffold,spec5 svm,ridge
run "$few" random5 mlp,rf
run "$few" paper svm

molcmim benchmark report "$out" --reference molcmim-tiny-chem:both
