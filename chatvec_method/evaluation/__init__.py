"""What a model can do in a language, measured by lm-evaluation-harness.

`harness` puts the harness's tasks to a model that can be talked to, `adapter` is what the harness
sees of that model, `measures` are what an answer is asked for. Tasks are YAML files wherever their
authors keep them; those of the miniature world are in `examples/world/tasks`.
"""
