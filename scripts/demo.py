"""Embed real molecules with dirty rows among them, and say what came out: what `make demo` runs.

    python scripts/demo.py                      # 5,000 compounds of RDKit's NCI file and data/example.smi
    python scripts/demo.py --limit 200 --out /tmp/demo

Writes `molecules.smi` (the input) and `embeddings.parquet` into the output directory.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rdkit import Chem, RDConfig
from rdkit.Chem import rdFingerprintGenerator
from rdkit.DataStructs import TanimotoSimilarity

EXAMPLE = Path(__file__).resolve().parent.parent / "data" / "example.smi"
NCI = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"
ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"  # RDKit's canonical SMILES
MEANING = {
    "ok": "embedded",
    "empty": "nothing in the row",
    "not_ascii": "a character that no SMILES has",
    "too_many_chars": "longer than the limit on characters",
    "parse_error": "RDKit can't read it",
    "zero_atoms": "a molecule without atoms",
    "timeout": "took too long",
    "crash": "RDKit crashed on it",
    "unknown_token": "an atom or bond the model has never seen",
    "too_many_tokens": "longer than the model takes",
}


class Neighbour(NamedTuple):
    name: str
    smiles: str
    cosine: float


def write_input(path: Path, limit: int | None) -> list[str]:
    """Write the input: `data/example.smi`, then the first `limit` NCI compounds. Returns each row's name."""
    lines = EXAMPLE.read_text(encoding="utf-8").split("\n")[:-1]
    nci = NCI.read_text(encoding="utf-8").splitlines()[:limit]
    lines += [f"{smiles}\tNSC_{number}" for smiles, number in (line.split() for line in nci)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [line.rpartition("\t")[2] for line in lines]


def embed(source: Path, target: Path) -> None:
    """Run `molcmim embed` as a user would, and show its first line: rows, seconds, molecules per second."""
    print(f"$ molcmim embed {source} -o {target}", flush=True)
    # Through -m, not the script on PATH, so that it is this environment's molcmim.
    command = [sys.executable, "-m", "molcmim", "embed", str(source), "-o", str(target)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)  # it has said why on stderr
    print(done.stdout.partition("\n")[0])


def neighbours_of(smiles: str, table: pa.Table, names: list[str], n: int) -> list[Neighbour]:
    """The `n` other molecules of `table` whose embeddings have the largest cosine with that of `smiles`."""
    ok = np.array([status == "ok" for status in table["status"].to_pylist()])
    rows = np.flatnonzero(ok)
    vectors = np.array(table["embedding"].filter(pa.array(ok)).to_pylist(), dtype=np.float32)  # (rows, d)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    canonical = table["canonical_smiles"].to_pylist()
    cosine = vectors @ vectors[[canonical[row] for row in rows].index(smiles)]
    found: dict[str, Neighbour] = {}
    for i in np.argsort(-cosine):
        row = rows[i]
        if canonical[row] != smiles and canonical[row] not in found:  # the same molecule may be there twice
            found[canonical[row]] = Neighbour(names[row], canonical[row], float(cosine[i]))
        if len(found) == n:
            break
    return list(found.values())


def tanimoto(a: str, b: str) -> float:
    """Tanimoto similarity of two SMILES by ECFP4 (Morgan radius 2, 2048 bits)."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    fingerprints = [generator.GetFingerprint(Chem.MolFromSmiles(smiles)) for smiles in (a, b)]
    return float(TanimotoSimilarity(*fingerprints))


def print_summary(table: pa.Table, names: list[str]) -> None:
    """Print rows, statuses with an example of each, and aspirin's neighbours."""
    statuses = table["status"].to_pylist()
    width = table.schema.field("embedding").type.list_size
    print(f"\n{len(names):,} rows in, {table.num_rows:,} rows out, in order, each with a status;")
    print(f"a row that is ok has a vector of {width} numbers:\n")
    for status, count in Counter(statuses).most_common():
        row = statuses.index(status)
        example = "" if status == "ok" else f"e.g. row {row + 1}, {names[row].strip() or '(blank)'}"
        print(f"  {status:<16}{count:>6,}  {MEANING[status]:<42}{example}".rstrip())
    print("\nnearest to aspirin (cosine of the embeddings, then Tanimoto of ECFP4 for comparison):\n")
    for near in neighbours_of(ASPIRIN, table, names, n=3):
        print(f"  {near.cosine:.3f}  {tanimoto(ASPIRIN, near.smiles):.2f}  {near.name:<16} {near.smiles}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Embed real molecules with dirty rows among them.")
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="where input and output go")
    parser.add_argument("--limit", type=int, default=None, help="take only so many of the NCI compounds")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    names = write_input(options.out / "molecules.smi", options.limit)
    target = options.out / "embeddings.parquet"
    embed(options.out / "molecules.smi", target)
    table = pq.read_table(target)
    if table.num_rows != len(names):
        sys.exit(f"{target}: {len(names)} rows expected, got {table.num_rows}")
    print_summary(table, names)


if __name__ == "__main__":
    main()
