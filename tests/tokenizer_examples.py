"""Molecules that the tests of all tokenizers share."""

from hypothesis import strategies as st

SMILES = [
    "C",
    "CCO",
    "c1ccccc1",
    "CC(=O)Oc1ccccc1C(=O)O",  # aspirin
    "Cn1c(=O)c2c(ncn2C)n(C)c1=O",  # caffeine
    "C[C@H](N)C(=O)O",  # L-alanine
    "C[C@@H](N)C(=O)O",
    "F/C=C/F",
    "F/C=C\\F",
    "C[N+](C)(C)CC([O-])=O",
    "CC(=O)[O-].[Na+]",
    "[2H]C([2H])([2H])O",
    "[13CH3]c1c[nH]cn1",
    "C[S@](=O)c1ccc(Cl)cc1Br",
    "C#N",
    "O=[N+]([O-])c1ccccc1",
    "CN1CC[C@]23c4c5ccc(O)c4O[C@H]2[C@@H](O)C=C[C@H]3[C@H]1C5",  # morphine
    "c1cc2ccc3ccc4ccc5ccc6ccc1c1c2c3c4c5c61",  # six rings open at once
    "C[Si](C)(C)C",
    "C%10CCCCC%10",
]
SMILES_ONLY = [  # out of reach for SELFIES
    "[CH3:1][OH:2]",  # atom-map numbers
    "*CC*",
    "N->[Pt](<-N)(Cl)Cl",  # dative bonds
    "C%(123)CC%(123)",
    "OCl(=O)(=O)=O",  # Cl(VII); RDKit's canonical SMILES of it has separated charges, which SELFIES takes
    "C[Pt@SP1](F)(Cl)[H]",
    "[Re]$[Re]",
]

# Random texts that look like SMILES, some of which are.
SMILES_LIKE = st.text(alphabet="CNOcn()[]=#123%@+-HlBr.:/\\ *é", max_size=30)
