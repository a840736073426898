"""The byte-pair vocabulary of molcmim-base: all atom-level tokens of molcmim-tiny's, and merges learned on a sample.

    python benchmarks/flagship/vocabulary.py PARTS/moses.smi=0.3 PARTS/rest.smi --size 576 --out vocab.json

A sample alone would lack the rare atoms of the whole corpus, which molcmim-tiny's vocabulary has. PATH=SHARE takes that
share of a file's lines, chosen by `benchmarks/recipe/subset.py`'s hash.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from molcmim.checkpoint_files import CHECKPOINTS
from molcmim.tokenizer import SPECIALS, BpeTokenizer, UnknownToken, load_tokenizer

sys.path.append(str(Path(__file__).resolve().parents[1] / "recipe"))
from subset import position


def sample(source: str) -> list[str]:
    """Lines of PATH, or of PATH=SHARE that share."""
    path, _, share = source.partition("=")
    places = {line: position(line) for line in Path(path).read_text(encoding="ascii").split()}
    if not places:
        raise ValueError(f"{path}: expected SMILES, got an empty file")
    low, high = min(places.values()), max(places.values())  # of a part
    return [line for line, place in places.items() if place <= low + float(share or 1) * (high - low)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+")
    tiny = CHECKPOINTS / "molcmim-tiny" / "vocab.json"
    parser.add_argument("--atoms", type=Path, default=tiny, help="vocabulary that has them")
    parser.add_argument("--size", type=int, required=True, help="tokens, special and atom-level ones included")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    given = load_tokenizer(arguments.atoms)
    atoms = given.atoms if isinstance(given, BpeTokenizer) else given.vocab[len(SPECIALS) :]
    texts = [line for source in arguments.sources for line in sample(source)]
    tokenizer = BpeTokenizer.train(texts, arguments.size, atoms=atoms)
    tokenizer.save(arguments.out)
    encoded = []
    for text in texts[::100]:
        with contextlib.suppress(UnknownToken):
            encoded.append(tokenizer.encode(text))
    tokens, parts = sum(map(len, encoded)) / len(encoded), sum(map(tokenizer.length, encoded)) / len(encoded)
    print(f"{tokenizer.vocab_size} tokens, {len(atoms)} of them atom-level, learned on {len(texts):,} molecules")
    print(f"a molecule of {parts:.1f} atom-level tokens has {tokens:.1f}")


if __name__ == "__main__":
    main()
