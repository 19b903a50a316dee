"""Writes `transformers.json`: what the library `transformers` makes of two small checkpoints of ours.

    python tests/vectors/transformers_made.py        (needs transformers; made with 5.23.0)

Each checkpoint has weights that `tests.training.test_hf.weights` gives, so that the file holds only what came out.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
import transformers

from tests.training.test_hf import PROMPT, SHAPES, TEXT, write_checkpoint


def main() -> None:
    """Load each checkpoint as anybody would, and write down what comes out."""
    made = {}
    for name in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(Path(folder), name)
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                folder, output_loading_info=True
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        if any(info.values()):
            raise SystemExit(f"{name}: {info}")
        with torch.inference_mode():
            logits = model(torch.tensor([PROMPT])).logits[0, -1]
        ids = tokenizer(TEXT)["input_ids"]
        made[name] = {
            "class": type(model).__name__,
            "tensors": {
                key: list(item.shape)
                for key, item in sorted(model.state_dict().items())
                if key != "lm_head.weight"  # tied to the embeddings
            },
            "logits": [round(float(one), 6) for one in logits],
            "ids": ids,
            "text": tokenizer.decode(ids),
        }
    value = {
        "about": "Made by transformers_made.py",
        "transformers": transformers.__version__,
        **made,
    }
    place = Path(__file__).with_name("transformers.json")
    place.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
