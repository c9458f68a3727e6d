"""The models that people use today, in miniature, and what the product makes of each.

`table` names them, `tokenizer_families` and `miniatures` make them, `oracle` says what is right,
and `sweep` puts each through check, merge, and stock mergekit with finish. `python -m tests.today`
prints what came out.
"""
