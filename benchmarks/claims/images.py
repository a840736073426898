"""The claims on images: objectives and embeddings, batch size, temperature, latent width.

    python benchmarks/claims/images.py                    # scikit-learn's digits -> results/images.jsonl
    python benchmarks/claims/images.py --study batch      # one of grid, batch, tau, width
    python benchmarks/claims/images.py --data FILE.npz    # another set -> results/FILE.jsonl
    python benchmarks/claims/images.py --again 2          # computes two cells chosen at random again, and prints both

All cells: the model of examples/images, equally many images seen, scores on the test part. Learning rates are chosen
for each setting (objective, batch size, temperature, latent width) among nine that grow with the square root of the
batch, by the validation part: the best mean over embeddings of five nearest neighbours with ten labels a class, at seed
0. Seeds 1 to 3 are what is reported, also of a model that isn't trained.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import Cell, best_rate, compute, key_of, read

from molcmim.objective import ObjectiveConfig

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "examples" / "images"))
from geometry import effective_rank, uniformity  # noqa: E402
from image_model import KINDS, OBJECTIVES, ImageModel, embed, train  # noqa: E402
from train_images import HEADS, Images, accuracy, load  # noqa: E402

EXAMPLES = 16_000  #: images seen in a run: 15 epochs of digits
RATES = tuple(2e-3 * 4.0**power for power in range(-4, 5))  #: learning rates at a batch of 64
SEEDS = (1, 2, 3)
BATCHES = (2, 4, 8, 16, 64, 256, 1024)
TAUS = (0.05, 0.1, 0.2, 0.5, 1.0)
WIDTHS = (32, 64, 128, 256, 512)
UNTRAINED = "untrained"  #: an objective with a learning rate of zero
FEW = 10  #: labels a class, where few are given
DEFAULT: Cell = {"objective": "cmim", "batch": 64, "tau": 0.1, "latent": 64}


def settings(study: str) -> list[Cell]:
    """What a study compares, without learning rates and seeds."""
    if study == "grid":
        return [DEFAULT | {"objective": name} for name in OBJECTIVES]
    if study == "batch":
        return [DEFAULT | {"objective": name, "batch": b} for b in BATCHES for name in ("cmim", "infonce", "mim")]
    if study == "tau":
        return [DEFAULT | {"objective": name, "tau": tau} for tau in TAUS for name in ("cmim", "cvae", "infonce")]
    if study == "width":
        return [DEFAULT | {"objective": name, "latent": n} for n in WIDTHS for name in ("cmim", "mim", "infonce")]
    raise ValueError(f"study: expected one of {STUDIES}, got {study!r}")


STUDIES = ("grid", "batch", "tau", "width")


def few(y: np.ndarray, seed: int) -> np.ndarray:
    """Rows of `FEW` images of each class, drawn at random."""
    draw = np.random.RandomState(seed)
    return np.concatenate([draw.permutation(np.flatnonzero(y == label))[:FEW] for label in np.unique(y)])


def scores(
    embeddings: Callable[[torch.Tensor], np.ndarray], data: Images, on: str, heads: Sequence[str] = HEADS
) -> dict[str, float]:
    """Accuracy with all training labels, and with few of them: the mean over five draws."""
    (x, y), (x_on, y_on) = data.train, getattr(data, on)
    fit, test = embeddings(x), embeddings(x_on)
    found = {}
    for head in heads:
        found[f"{head}_all"] = accuracy((fit, y), (test, y_on), head)
        rows = [few(y, seed) for seed in range(5)]
        found[f"{head}_few"] = float(np.mean([accuracy((fit[r], y[r]), (test, y_on), head) for r in rows]))
    return found


def measure(cell: Cell, data: Images) -> dict[str, Any]:
    """Train one cell; its scores on the validation part with seed 0, on the test part with others."""
    config = ObjectiveConfig("mim" if cell["objective"] == UNTRAINED else cell["objective"], tau=cell["tau"])
    sizes = {"batch_size": cell["batch"], "examples": EXAMPLES, "lr": cell["lr"]}
    model: ImageModel = train(data.train[0], config, **sizes, seed=cell["seed"], latent=cell["latent"])
    if not np.isfinite(embed(model, data.train[0], "both")).all():
        return {"error": "diverged"}
    on, heads = ("test", HEADS) if cell["seed"] else ("valid", HEADS[:1])
    kinds = KINDS if config.has_decoder else KINDS[:1]
    result: dict[str, Any] = {kind: scores(lambda x, k=kind: embed(model, x, k), data, on, heads) for kind in kinds}
    x = getattr(data, on)[0]
    with torch.no_grad():
        mu, log_sigma = model.encode(x)
        if config.has_decoder:
            result["nats"] = float(-model.log_reconstruction(mu, x).mean())
        result["log_sigma_above_floor"] = float((log_sigma - model.floor).mean())
    result |= {"uniformity": uniformity(mu.numpy()), "effective_rank": effective_rank(mu.numpy())}
    return result


def validation_score(result: dict[str, Any]) -> float:
    """What learning rates are chosen by."""
    return (
        float(np.mean([result[kind]["knn_few"] for kind in KINDS if kind in result])) if "error" not in result else -1
    )


def rates(setting: Cell) -> list[float]:
    """Learning rates to choose from, in ascending order."""
    return [round(rate * (setting["batch"] / DEFAULT["batch"]) ** 0.5, 6) for rate in RATES]


def final_cells(path: Path, wanted: Sequence[Cell]) -> Iterator[Cell]:
    lines = read(path)
    for setting in wanted:
        rate = best_rate(lines, setting, validation_score)
        yield from (setting | {"lr": rate, "seed": seed} for seed in SEEDS)
    yield from (DEFAULT | {"objective": UNTRAINED, "lr": 0.0, "seed": seed} for seed in SEEDS)


def raw_pixels(data: Images) -> dict[str, float]:
    """What the pixels themselves score, on the test part."""
    return scores(lambda x: x.flatten(1).numpy(), data, "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=STUDIES)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=int, help="at most so many of them")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--again", type=int, help="compute so many finished cells again, chosen at random")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load(arguments.data, arguments.images)
    out = arguments.out or HERE / "results" / f"{'images' if arguments.data is None else arguments.data.stem}.jsonl"

    def work(cell: Cell) -> dict[str, Any]:
        return raw_pixels(data) if cell == {"pixels": True} else measure(cell, data)

    if arguments.again:
        done = [line["cell"] for line in read(out)]
        compute(out, random.Random().sample(done, arguments.again), work, again=True)
        return
    chosen = [setting for study in ([arguments.study] if arguments.study else STUDIES) for setting in settings(study)]
    wanted = list({key_of(setting): setting for setting in chosen}.values())
    tuning = [setting | {"lr": rate, "seed": 0} for setting in wanted for rate in rates(setting)]
    if not compute(out, [{"pixels": True}, *tuning], work) or not compute(out, final_cells(out, wanted), work):
        sys.exit(130)


if __name__ == "__main__":
    main()
