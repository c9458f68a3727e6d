"""What a model can do in a language, measured by lm-evaluation-harness.

An evaluation goes from targets (`opening`, `targets`, `recipes`, `server`) through questions
(`questions`, `suite`, `ready`) and the harness (`harness`, `adapter`, `remembering`), which asks
only what `answers` does not have yet, to `scores` and `results`; `sweep` goes from point to point,
and `evaluating` is all of it. `judge` has open answers judged, `conclusion` says which ratio does,
`curves` draws and `record` writes it into a recipe.

Tasks are YAML files wherever their authors keep them; those of the miniature world are in
`examples/world/tasks`.
"""
