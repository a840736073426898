"""Measures of generated molecules.

    known.py       is a molecule in a training set of millions? sorted hashes on disk
    molmim.py      MolMIM's per-seed measures, and reconstruction
    moses.py       the measures of MOSES, against its test sets
    reference.py   what MOSES' test sets are summarised as, and where the files come from
    published.py   MOSES' own statistics, read without unpickling
    chemistry.py   what is computed of one molecule: fragments, scaffold, fingerprint, filters, properties
    fcd.py         Fréchet ChemNet Distance
    generation.py  all of it for one file of samples; tables out

`molcmim benchmark generation SAMPLES` is the command.
"""
