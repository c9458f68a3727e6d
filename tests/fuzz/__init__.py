"""Recipes and model folders changed at random, and what `chatvec` makes of them.

    python -m tests.fuzz

tries 20,000 recipes and 1,000 folders, 5,000 recipes and 500 folders with chat vectors and
adapters, and 500 outputs that were changed after their merge, always the same ones. Nothing may
come of any of them but a result or one of our own messages, within 5 seconds of processor time and
1 GB; what `check` passes, `merge` has to bring to its end, and its output stands `verify --deep`
and a second `finish`; and no output is verified of which a byte is another. The hub is not asked.

All 27,000 of seed 0 have been run, in 17 minutes on two processors, 0.76 GB the largest. One was
wrong, and is mended: a config that counts a layer of which no model has a tensor (folder 108). Four
others stopped or lasted in the fuzzing itself, which nested a recipe too deep to copy it, and wrote
one of 133 MB, which was refused at once. 339 families and 209 with vectors were merged.

Of other seeds (7, 21, 34, and 5 and 6 of outputs) 6,300 have been run while kinds of changes were
added. Wrong were, and are mended: slices of more layers than there are, a tied model that stores
another head, a config in which a setting is called like a part of other models, and an output's
header that said the same in other bytes.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything of the hub's is imported
