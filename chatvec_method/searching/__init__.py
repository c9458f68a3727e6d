"""The ratio of every part and depth, found rather than guessed, on as many machines as one has.

A search goes from what is sought (`objectives`) and what is searched (`space`) through trials that
workers share (`trials`, `storage`, `life`), each a live merge at other ratios and an evaluation of
one half of the prompts (`search`, `halves`, `kept`); `starts` and `sampling` propose ratios, and
`ending` lets hopeless ones go. `outcome` says what was found, by the other half; `recipes`, `files`
and `pictures` write it down.
"""
