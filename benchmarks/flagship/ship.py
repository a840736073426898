"""Put a trained model where the package finds it by name, with a mixture fitted to its codes for sampling.

    python benchmarks/flagship/ship.py RUN/export --corpus CORPUS

The mixture is fitted to 20,000 molecules of the corpus' training part, drawn at random from all sources. The model card
is written by benchmarks/tiny/evaluate.py --card.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np

from molcmim import MolCMIM
from molcmim.checkpoint_files import CHECKPOINTS, read_config
from molcmim.corpus import TokenStore
from molcmim.pretrained import save_mixture
from molcmim.sampling import MIXTURE_ROWS, fit_mixture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path, help="directory of the model")
    parser.add_argument("--corpus", type=Path, required=True, help="corpus directory with the model's vocabulary")
    parser.add_argument("--into", type=Path, default=CHECKPOINTS, help="default: the package")
    arguments = parser.parse_args()
    model, store = MolCMIM.from_pretrained(arguments.export), TokenStore.open(arguments.corpus, "train")
    if store.info.fingerprint != model.tokenizer.fingerprint:
        parser.error(f"--corpus: {arguments.corpus} has another vocabulary than {arguments.export}")
    chosen = np.random.default_rng(0).choice(len(store), min(len(store), MIXTURE_ROWS), replace=False)
    mixture = fit_mixture(model, store.rows(np.sort(chosen)), corpus="training part, all sources")
    place = arguments.into / read_config(arguments.export)["name"]
    shutil.copytree(arguments.export, place, dirs_exist_ok=True)
    save_mixture(place, mixture)
    print(f"{place}: model {model.model_id}, mixture of {len(mixture)} Gaussians")


if __name__ == "__main__":
    main()
