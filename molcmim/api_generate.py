"""The generating methods of `MolCMIM`; the work is done in `molcmim.sampling`."""

# Axes: n rows, S seeds, L latent, D width.

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Unpack, cast

import numpy.typing as npt

from molcmim import sampling
from molcmim.decoding import Decoding, DecodingArguments
from molcmim.generated import GeneratedTable
from molcmim.mixture import Mixture

if TYPE_CHECKING:
    from molcmim.api import MolCMIM


class GenerateMethods:
    """Part of `MolCMIM`. Each method returns a table (see `molcmim.generated`) and raises ValueError without decoder.

    All take the keyword arguments of `molcmim.decoding.Decoding`: `mode` (``"greedy"``, ``"sample"``, ``"beam"``),
    `temperature`, `top_k`, `top_p`, `width`, `repair`, `properties`, `batch_size`, `workers`, `progress`.
    """

    def decode_table(self, z: npt.ArrayLike, seed: int = 0, **decoding: Unpack[DecodingArguments]) -> GeneratedTable:
        """Write latent vectors as molecules, and say what became of each: n rows in, n rows out, in order.

        Parameters
        ----------
        z
            (n, L) latent vectors, or (n, L + D) embeddings of kind ``"both"``. A row that isn't finite has the
            status ``no_vector``.
        seed
            Of sampling and of repairs.
        decoding
            See `molcmim.decoding.Decoding`; default: greedy.

        Raises
        ------
        ValueError
            If z has another shape, or an option isn't one of those there are (an unknown property among them).

        Examples
        --------
        >>> z = model.embed(["CC(=O)Oc1ccccc1C(=O)O"], kind="latent")               # doctest: +SKIP
        >>> model.decode_table(z, properties=["qed"]).to_frame()                   # doctest: +SKIP
        """
        sampling.check_seed(seed)
        return sampling.decode_table(self._model(), z, Decoding(**decoding), seed)

    def sample(
        self,
        n: int,
        source: str | Mixture | None = None,
        seed: int = 0,
        valid_only: bool = False,
        unique: bool = False,
        **decoding: Unpack[DecodingArguments],
    ) -> GeneratedTable:
        """Write molecules of vectors drawn at random.

        Parameters
        ----------
        n
            Rows of the table.
        source
            ``"mixture"``: the mixture of Gaussians in the checkpoint (`mixture`), which was fitted to codes and holds
            the posterior's own noise. ``"prior"``: N(0, I), the prior of the objective; MIM's codes may fill only a
            small part of it. Or a `Mixture` of your own (`molcmim.sampling.fit_mixture`). Default: the mixture; of a
            checkpoint without one the prior, with a warning.
        seed
            Of all random numbers.
        valid_only, unique
            Leave out rows that aren't valid, or whose molecule has come before, and draw on until there are n. After
            20 n draws the table stays shorter, with a warning. Shares of valid or distinct rows of such a table say
            nothing about the model.
        decoding
            See `molcmim.decoding.Decoding`; default: greedy.

        Raises
        ------
        ValueError
            If n < 1, the source isn't there or isn't this model's, or an option isn't one of those there are.

        Examples
        --------
        >>> table = model.sample(1000, temperature=0.8, top_p=0.95)               # doctest: +SKIP
        >>> table.valid.mean()                                                     # doctest: +SKIP
        """
        return sampling.sample(self._model(), n, source, seed, valid_only, unique, Decoding(**decoding))

    def neighbours(
        self,
        smiles: str | Iterable[object],
        radius: float = 1.0,
        n: int = 10,
        seed: int = 0,
        unit: str = sampling.RADIUS_UNIT,
        policy: str = "canonical",
        **decoding: Unpack[DecodingArguments],
    ) -> GeneratedTable:
        """Write molecules around a molecule: z = mu + radius * noise, noise ~ N(0, I) (MolMIM, arXiv 2208.09016).

        Parameters
        ----------
        smiles
            One molecule, or S of them; fragments and scaffolds are molecules too.
        radius
            Standard deviation of the noise in each latent dimension, in `unit`. 0: the molecule itself, decoded.
        n
            Rows for each seed.
        seed
            Of all random numbers.
        unit
            ``"absolute"``, or ``"spread"``: multiples of the spread of the model's codes (mean norm of mu divided by
            the square root of L), by which radii mean about the same for different models.
        policy
            How seeds are prepared, see `embed`.
        decoding
            See `molcmim.decoding.Decoding`; default: greedy.

        Returns
        -------
        GeneratedTable
            S times n rows, those of the first seed first. A seed that can't be embedded has its rows too, without
            molecules; their status is ``seed_`` and the status of the seed.

        Raises
        ------
        ValueError
            If radius < 0, n < 1, or an option isn't one of those there are.

        Examples
        --------
        >>> model.neighbours("CC(=O)Oc1ccccc1C(=O)O", radius=0.1, n=20).to_frame()     # doctest: +SKIP
        """
        return sampling.neighbours(self._model(), smiles, radius, n, seed, unit, policy, Decoding(**decoding))

    def interpolate(
        self,
        a: object,
        b: object,
        steps: int = 10,
        seed: int = 0,
        policy: str = "canonical",
        **decoding: Unpack[DecodingArguments],
    ) -> GeneratedTable:
        """Write molecules on the way from one to another: (1 - t) mu(a) + t mu(b) at evenly spaced t, ends included.

        The line is straight. Going along a sphere instead is for codes that lie on the shell of N(0, I), at a distance
        of about sqrt(L) from the origin; MIM's codes lie well inside it, around the origin, where the decoder has been
        trained on the space between them as well.

        Parameters
        ----------
        a, b
            The two molecules.
        steps
            Rows, both ends counted: at least 2.
        seed
            Of sampling and of repairs.
        policy
            How the two are prepared, see `embed`.
        decoding
            See `molcmim.decoding.Decoding`; default: greedy.

        Returns
        -------
        GeneratedTable
            Its `seed`, `distance` and `tanimoto` refer to `a`.

        Raises
        ------
        ValueError
            If `a` or `b` can't be embedded, steps < 2, or an option isn't one of those there are.

        Examples
        --------
        >>> model.interpolate("CCO", "c1ccccc1", steps=5).smiles                   # doctest: +SKIP
        """
        return sampling.interpolate(self._model(), a, b, steps, seed, policy, Decoding(**decoding))

    def _model(self) -> MolCMIM:
        return cast("MolCMIM", self)
