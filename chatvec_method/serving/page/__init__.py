"""The page of `chatvec live`, in gradio: the ratio is turned while one talks to the model.

`build` lays it out and says what happens when; `knobs` are its sliders, `session` is what one
visitor has said and tried, `asking` has the engine answer, `measure` asks the suite's prompts, and
`mounting` puts the page on the server's app with all of gradio's doors shut that it does not need.
What people read is in `languages/`, a file each.
"""
