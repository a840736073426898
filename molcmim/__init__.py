"""molcmim: molecule embeddings and generation from one contrastive Mutual Information Machine (cMIM).

    from molcmim import MolCMIM
    model = MolCMIM.from_pretrained()
    x = model.embed(["CCO", "c1ccccc1"])        # (2, d) float32

Names are imported on first use, so that ``import molcmim`` stays fast and does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from molcmim.api import EmbedResult, MolCMIM
    from molcmim.chem import Prepared, Status, prepare, prepare_many
    from molcmim.pretrained import CheckpointError
    from molcmim.tokenizer import Tokenizer, UnknownToken, load_tokenizer

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "EmbedResult",
    "MolCMIM",
    "Prepared",
    "Status",
    "Tokenizer",
    "UnknownToken",
    "__version__",
    "load_tokenizer",
    "prepare",
    "prepare_many",
]

# public name -> the module that defines it
_HOME = {
    "CheckpointError": "molcmim.pretrained",
    "EmbedResult": "molcmim.api",
    "MolCMIM": "molcmim.api",
    "Prepared": "molcmim.chem",
    "Status": "molcmim.chem",
    "Tokenizer": "molcmim.tokenizer",
    "UnknownToken": "molcmim.tokenizer",
    "load_tokenizer": "molcmim.tokenizer",
    "prepare": "molcmim.chem",
    "prepare_many": "molcmim.chem",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'molcmim' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
