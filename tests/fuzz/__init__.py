"""Recipes and model folders changed at random, and what `chatvec` makes of them.

    python -m tests.fuzz

tries 20,000 recipes and 1,000 folders, always the same ones. Nothing may come of any of them but a
result or one of our own messages, within 5 seconds and 1 GB; and what `check` passes, `merge` has
to bring to its end. The hub is not asked.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything of the hub's is imported
