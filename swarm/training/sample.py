"""Inference: text from a language model, a grid of images from a generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from swarm.training import evaluator, models, philox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from swarm.training.checkpoint import Checkpoint
    from swarm.training.tokens import Tokenizer

MAX_LENGTH: Final = 65_536
"""Tokens that one request may ask for."""
MAX_PROMPT: Final = 2**20
GRID: Final = 8
"""Images a side."""
ENLARGED: Final = 4
"""Screen pixels a side of one pixel."""
BORDER: Final = 96
"""Grey between images."""


def text(
    model: nn.Module,
    context: int,
    tokenizer: Tokenizer | None,
    prompt: str,
    device: torch.device,
    report: Callable[[int, int, float], None],
    *,
    length: int,
    temperature: float,
    seed: int,
) -> str:
    """Continue a prompt token by token; what is not UTF-8 becomes U+FFFD.

    Args:
        model: Tokens (B, T) to logits.
        context: Tokens that it reads at most.
        tokenizer: The checkpoint's; None: bytes are the tokens.
        prompt: Only its last `context` tokens are read; empty starts at a line's beginning.
        device: Where to compute.
        report: Called after each token, so that the job can be given up.
        length: Tokens to generate.
        temperature: 0 takes the likeliest token each time.
        seed: Equal seeds give equal text.

    Returns:
        Only what was generated.
    """
    tokens = encode(prompt, tokenizer)
    length = min(length, MAX_LENGTH)
    draws = philox.unit(seed, length)
    start = len(tokens)
    with torch.inference_mode():
        for at in range(length):
            window = torch.tensor([tokens[-context:]], device=device)
            logits = model(window)[0, -1].cpu().double().numpy()
            tokens.append(pick(logits, temperature, float(draws[at])))
            report(at + 1, length, 0.0)
    if tokenizer is None:
        return bytes(tokens[start:]).decode(errors="replace")
    # A decoder may write the first token of a text otherwise than one inside it, without its space say.
    head, whole = tokenizer.decode(tokens[:start]), tokenizer.decode(tokens)
    return whole[len(head) :] if whole.startswith(head) else tokenizer.decode(tokens[start:])


def encode(prompt: str, tokenizer: Tokenizer | None) -> list[int]:
    """A prompt's tokens; at least one, since the model continues something."""
    if tokenizer is None:
        return list(prompt.encode(errors="surrogatepass")) or [10]
    text = prompt.encode(errors="replace").decode()
    for start in (text, "\n"):
        if found := tokenizer.encode([start]).tolist():
            return [int(one) for one in found]
    return [0]


def pick(logits: np.ndarray, temperature: float, draw: float, top_p: float = 1.0) -> int:
    """The token that a draw in [0, 1) chooses, of the likeliest that have `top_p` of the probability; at least one."""
    if temperature <= 0 or top_p <= 0:
        return int(logits.argmax())
    weights = np.exp((logits - logits.max()) / temperature)
    if top_p < 1:
        order = np.argsort(-weights, kind="stable")
        before = np.cumsum(weights[order]) - weights[order]
        weights[order[before >= top_p * weights.sum()]] = 0
    ends = np.cumsum(weights)
    return min(int(np.searchsorted(ends, draw * ends[-1], side="right")), len(ends) - 1)


def grid(base: Checkpoint, out: Path, device: torch.device, *, seed: int) -> None:
    """Write a PNG of `GRID` by `GRID` generated images.

    Args:
        base: A checkpoint of kind gan.
        out: The file.
        device: Where to compute.
        seed: Equal seeds give equal latents.
    """
    from PIL import Image

    pair = models.fill(models.build(base.config.model), base.tensors, device)
    assert isinstance(pair, models.Pair)  # noqa: S101 - narrows the type; the caller checked the kind
    latent = pair.generator.first.in_features
    images = evaluator.generate(pair.generator, philox.normal(seed, (GRID * GRID, latent)), device)
    pixels = ((images.cpu().numpy() + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    pixels = np.pad(pixels, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=BORDER)
    _, channels, height, width = pixels.shape
    rows = pixels.reshape(GRID, GRID, channels, height, width).transpose(0, 3, 1, 4, 2)
    sheet = rows.reshape(GRID * height, GRID * width, channels)
    sheet = sheet.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".part")
    image = Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet)
    image.save(temporary, format="PNG")
    temporary.replace(out)
