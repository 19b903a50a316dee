"""What is learnt from a batch of samples, by what they hold: next tokens, or labels.

Samples are an array; where one holds several things, its fields have names (a structured array):

    plain             tokens, (N, context + 1): each is predicted from those before it
    label, pixels     a classifier's image
    label, values     a classifier's row
    tokens, levels …  tokens with their encodings, of which the final layers are trained; see `encodings`

So draws, digests and the inner loop are the same for all kinds, and a loss is always nats a sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from swarm.training import encodings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from swarm.training.tensors import Array


def losses(model: nn.Module, samples: Array, device: torch.device) -> Tensor:
    """Shape (N,): the loss of each sample in nats.

    Args:
        model: That of the samples' kind.
        samples: Shape (N, …).
        device: Where the model is.
    """
    names = samples.dtype.names
    if names is None:
        tokens = torch.from_numpy(samples.astype(np.int64)).to(device)
        return token_losses(model(tokens[:, :-1]), tokens)
    if "levels" in names:
        tokens = torch.from_numpy(samples["tokens"].astype(np.int64)).to(device)
        states = torch.from_numpy(encodings.decode(samples)).to(device)
        return token_losses(model(states), tokens)
    labels = torch.from_numpy(samples["label"].astype(np.int64)).to(device)
    return functional.cross_entropy(model(_content(samples, device)), labels, reduction="none")


def hits(model: nn.Module, samples: Array, device: torch.device) -> int:
    """How many samples of a classifier get their own label."""
    with torch.inference_mode():
        found = model(_content(samples, device)).argmax(1).cpu().numpy()
    return int((found == samples["label"]).sum())


def token_losses(logits: Tensor, tokens: Tensor) -> Tensor:
    """(B, T, vocabulary) logits and (B, T + 1) tokens to (B,): the mean loss of each sequence in nats."""
    found = functional.cross_entropy(
        logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    )
    return found.view(len(tokens), -1).mean(1)


def readable(content: Array, device: torch.device) -> Tensor:
    """What a classifier reads: pixels (uint8) as -1 to 1, rows as they are."""
    if content.dtype == np.uint8:
        return torch.from_numpy(content.astype(np.float32) / 127.5 - 1).to(device)
    return torch.from_numpy(np.ascontiguousarray(content)).to(device)


def _content(samples: Array, device: torch.device) -> Tensor:
    name = "pixels" if "pixels" in (samples.dtype.names or ()) else "values"
    return readable(samples[name], device)
