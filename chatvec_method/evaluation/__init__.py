"""The paper's measurements, made by lm-evaluation-harness.

`harness` joins the harness to models that can be talked to, `measures` are what an answer is asked
for. Tasks are YAML files wherever their authors keep them; those of the miniature world are in
`examples/world/tasks`.
"""
