"""What a transformers says of models on disk, as JSON: run by a Python that has another version.

    python read_with.py cp out > said.json

It needs transformers 4 or 5, torch and safetensors, and knows nothing of this project.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
)

SENTENCE = "Hello world, 서울의 날씨는 좋습니다. 東京は今日も天気がいい。你好 model 1234!\nYes."
LEFT_OUT = ("_name_or_path", "transformers_version")
PROMPT = list(range(20, 60))
"""Long enough for a wrong rope to be seen in what a model says."""


def said_of(folder: Path) -> dict[str, Any]:
    """Return what this transformers makes of a folder."""
    config = AutoConfig.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    seeing = hasattr(config, "vision_config")
    loader = AutoModelForImageTextToText if seeing else AutoModelForCausalLM
    model, info = loader.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    ids = tokenizer(SENTENCE)["input_ids"]
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor([PROMPT])).logits[0, -1]
    stops = model.generation_config.eos_token_id
    settings = {k: v for k, v in config.to_dict().items() if k not in LEFT_OUT}
    return {
        "config": json.loads(json.dumps(settings, default=str)),
        "tokenizer": type(tokenizer).__name__,
        "ids": ids,
        "text": tokenizer.decode(ids, skip_special_tokens=True),
        "template": tokenizer.chat_template,
        "stops": stops if isinstance(stops, list) else [stops],
        "missing": sorted(map(str, info["missing_keys"])),
        "unexpected": sorted(map(str, info["unexpected_keys"])),
        "logits": logits.tolist(),
    }


def main() -> None:
    """Print what is said of each folder, or why nothing can be said of it."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    said: dict[str, Any] = {"transformers": transformers.__version__}
    for name in sys.argv[1:]:
        try:
            said[name] = said_of(Path(name))
        except Exception as error:  # that is what the caller wants to know
            said[name] = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
