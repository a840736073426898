"""Trains the model of image_model.py and says how well its embeddings tell labels apart.

python examples/images/train_images.py                              # scikit-learn's digits, cMIM: half a minute
python examples/images/train_images.py --objective infonce --batch-size 16
python examples/images/train_images.py --data fashion_mnist.npz     # any .npz of images and labels
"""

# Axes: N images, C channels, H x W pixels.

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from image_model import KINDS, OBJECTIVES, embed, train
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from molcmim.moleculenet.heads import fitted
from molcmim.objective import ObjectiveConfig

HEADS = ("knn", "mlp")


class Images(NamedTuple):
    """Images and labels, split 60 / 20 / 20 at random, always in the same way."""

    train: tuple[Tensor, np.ndarray]  #: x (N, C, H, W) in [0, 1], labels (N,)
    valid: tuple[Tensor, np.ndarray]
    test: tuple[Tensor, np.ndarray]


def load(path: Path | None = None, n: int | None = None) -> Images:
    """scikit-learn's 1,797 digits of 8 x 8 pixels, or an .npz with arrays named like MNIST's or MedMNIST's.

    Parameters
    ----------
    path
        Its arrays of 3 or 4 axes are images (N, H, W[, C]) of 0 to 255; the others labels, in the same order.
    n
        At most so many images.

    Raises
    ------
    ValueError
        If images and labels aren't equally many.
    """
    if path is None:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        x = x.reshape(-1, 8, 8) / 16
    else:
        with np.load(path) as arrays:
            parts = [arrays[name] for name in arrays.files]
        x = np.concatenate([part for part in parts if part.ndim > 2]) / 255
        y = np.concatenate([part.reshape(-1) for part in parts if part.ndim <= 2])
    if len(x) != len(y):
        raise ValueError(f"{path}: expected a label for each image, got {len(x)} images and {len(y)} labels")
    x = np.moveaxis(x, -1, 1) if x.ndim == 4 else x[:, None]
    order = np.random.RandomState(0).permutation(len(x))[:n]
    cuts = [int(0.6 * len(order)), int(0.8 * len(order))]
    made = [(torch.tensor(x[rows], dtype=torch.float32), y[rows]) for rows in np.split(order, cuts)]
    return Images(*made)


def accuracy(fit: tuple[np.ndarray, np.ndarray], on: tuple[np.ndarray, np.ndarray], head: str) -> float:
    """Share of labels found from embeddings and labels by five nearest neighbours (cosine), or by an MLP."""
    if head == "knn":
        return float(KNeighborsClassifier(5, metric="cosine").fit(*fit).score(*on))
    scaler = StandardScaler().fit(fit[0])
    many = len(fit[1]) >= 1000  # enough to set some aside
    mlp = MLPClassifier((128,), max_iter=200, early_stopping=many, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 200 rounds are enough for a comparison
        fitted(mlp, scaler.transform(fit[0]), fit[1])
    return float(mlp.score(scaler.transform(on[0]), on[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--objective", choices=OBJECTIVES, default="cmim")
    parser.add_argument("--tau", type=float, default=0.1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--examples", type=int, default=80_000, help="images seen in training")
    parser.add_argument("--lr", type=float, default=1e-3)
    arguments = parser.parse_args()
    data, config = load(arguments.data), ObjectiveConfig(arguments.objective, tau=arguments.tau)
    sizes = {"batch_size": arguments.batch_size, "examples": arguments.examples, "lr": arguments.lr}
    model = train(data.train[0], config, **sizes)
    for kind in KINDS if config.has_decoder else KINDS[:1]:
        (x, y), (x_test, y_test) = data.train, data.test
        fit, test = (embed(model, x, kind), y), (embed(model, x_test, kind), y_test)
        print(f"{kind:12} kNN {accuracy(fit, test, 'knn'):.3f}  MLP {accuracy(fit, test, 'mlp'):.3f}")
    if config.has_decoder:
        with torch.no_grad():
            nats = -model.log_reconstruction(model.encode(data.test[0]).mu, data.test[0]).mean()
        print(f"reconstruction {nats:.2f} nats an image, z = mu")


if __name__ == "__main__":
    main()
