"""A model that costs next to nothing, to measure what is around the model on a machine without a GPU.

    python benchmarks/scoring/light_model.py scratch/light       # then e.g. memory.py --model scratch/light

It has the vocabulary, the length limit and the latent width of a shipped one, but one narrow layer a side and random
weights from a seed: reading, chemistry, tokens, batches and writing are those of real runs, the vectors mean nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from molcmim import MolCMIM
from molcmim.model import CMIM
from molcmim.pretrained import save_pretrained


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="for the model; must not be there")
    parser.add_argument("--like", default="molcmim-tiny", help="the shipped model")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    like = MolCMIM.from_pretrained(given.like, device="cpu")
    small = {"width": given.width, "heads": 1, "mlp_width": given.width, "encoder_layers": 1, "decoder_layers": 1}
    torch.manual_seed(given.seed)
    model = CMIM(replace(like.network.config, **small), like.tokenizer.parts()).eval()
    scales = {"latent": 1.0, "informative": 1.0}
    facts = {"objective": {"name": "cmim"}, "training": {"molecules": 0}, "scales": scales}
    given.directory.parent.mkdir(parents=True, exist_ok=True)
    save_pretrained(given.directory, model, like.tokenizer, **facts)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters -> {given.directory}")


if __name__ == "__main__":
    main()
