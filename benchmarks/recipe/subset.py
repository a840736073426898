"""A part of a file of SMILES, chosen by a hash of each text, in two files: MOSES molecules and the others.

    python benchmarks/recipe/subset.py corpus.smi.xz --moses molsets --share 0.1684 --out DIR

`molsets` is the installed package; the path of its wheel does as well. SMILES are compared as text, so the file's must
be canonical. MOSES' were, with an older RDKit: those that the file doesn't hold are compared in their new form, too.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from molcmim.chem import canonicalise
from molcmim.corpus_input import read_smiles


def position(text: str) -> float:
    """A SMILES' place in [0, 1), the same on any machine and whatever else the file holds."""
    digest = hashlib.blake2b(f"recipe {text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2.0**64


def chosen(text: str, share: float, start: float = 0.0) -> bool:
    """Whether it is in the part: a smaller part is the beginning of a larger one; parts with other starts go on."""
    return start <= position(text) < start + share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--moses", required=True, help="molsets, or the path of its wheel")
    parser.add_argument("--share", type=float, required=True)
    parser.add_argument("--start", type=float, default=0.0, help="where the part begins; up to there others reach")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    texts = [text for text in read_smiles(arguments.file) if text and chosen(text, arguments.share, arguments.start)]
    moses = set(read_smiles(arguments.moses))
    moses |= {
        canonicalise(text, "canonical").canonical_smiles for text in moses.difference(read_smiles(arguments.file))
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, part in (("moses", [t for t in texts if t in moses]), ("rest", [t for t in texts if t not in moses])):
        (arguments.out / f"{name}.smi").write_text("".join(f"{text}\n" for text in part), encoding="ascii")
        print(f"{name}.smi: {len(part):,} molecules")


if __name__ == "__main__":
    main()
