"""The registry of architectures: a task names one and its sizes, never code.

Language models are in `decoders`, final layers on a frozen base in `finetune`, classifiers in `classifier`.
`Generator` and `Discriminator` follow DCGAN (Radford et al., 2015), with group norms in place of batch norms so
that an image does not depend on the others in its batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from swarm.training import philox
from swarm.training.assignment import torch_seed
from swarm.training.classifier import classifier
from swarm.training.decoders import RESIDUAL, Decoder, decoder
from swarm.training.errors import CheckpointError
from swarm.training.finetune import Tail
from swarm.training.sizes import ClassifierModel, FinetuneModel, GanModel, LmModel, Model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from swarm.training.tensors import Array


class Generator(nn.Module):
    """Latents (B, latent) to images (B, channels, size, size) in -1 to 1."""

    def __init__(self, sizes: GanModel) -> None:
        super().__init__()
        self.widest = sizes.base * sizes.size // 8
        self.first = nn.Linear(sizes.latent, self.widest * 16)
        self.norms = nn.ModuleList()
        self.ups = nn.ModuleList()
        width, side = self.widest, 4
        while side < sizes.size:
            side *= 2
            narrower = width // 2 if side < sizes.size else sizes.channels
            self.norms.append(nn.GroupNorm(4, width))
            self.ups.append(nn.ConvTranspose2d(width, narrower, 4, stride=2, padding=1))
            width = narrower

    def forward(self, latents: Tensor) -> Tensor:
        x = self.first(latents).view(-1, self.widest, 4, 4)
        for norm, up in zip(self.norms, self.ups, strict=True):
            x = up(functional.relu(norm(x)))
        return torch.tanh(x)


class Discriminator(nn.Module):
    """Images to one logit each, (B,): above zero for real ones."""

    def __init__(self, sizes: GanModel) -> None:
        super().__init__()
        self.downs = nn.ModuleList()
        self.norms = nn.ModuleList()
        width, side = sizes.channels, sizes.size
        wider = sizes.base
        while side > 4:
            self.downs.append(nn.Conv2d(width, wider, 4, stride=2, padding=1))
            self.norms.append(nn.GroupNorm(4, wider) if width != sizes.channels else nn.Identity())
            width, wider, side = wider, wider * 2, side // 2
        self.last = nn.Linear(width * 16, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for down, norm in zip(self.downs, self.norms, strict=True):
            x = functional.leaky_relu(norm(down(x)), 0.2)
        result: Tensor = self.last(x.flatten(1)).squeeze(1)
        return result


class Pair(nn.Module):
    """A generator and its discriminator as one checkpoint."""

    def __init__(self, sizes: GanModel) -> None:
        super().__init__()
        self.generator = Generator(sizes)
        self.discriminator = Discriminator(sizes)


class Autoencoder(nn.Module):
    """The evaluator of a gan task: its features are what images are judged by."""

    def __init__(self, sizes: GanModel, features: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(sizes.channels, 16, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(32 * (sizes.size // 4) ** 2, features),
        )
        self.decoder = nn.Sequential(
            nn.Linear(features, 32 * (sizes.size // 4) ** 2),
            nn.GELU(),
            nn.Unflatten(1, (32, sizes.size // 4, sizes.size // 4)),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(16, sizes.channels, 4, stride=2, padding=1),
            nn.Tanh(),
        )

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.decoder(self.encoder(images))
        return result


def build(sizes: Model) -> nn.Module:
    """The model of those sizes without storage, of a finetune what is trained; `fill` gives it its weights."""
    with torch.device("meta"):
        match sizes:
            case LmModel():
                return decoder(sizes)
            case FinetuneModel():
                return Tail(sizes)
            case ClassifierModel():
                return classifier(sizes)
            case GanModel():
                return Pair(sizes)


def fill(module: nn.Module, values: Mapping[str, Array], device: torch.device) -> nn.Module:
    """Give a module from `build` its weights.

    Raises:
        CheckpointError: The tensors are not exactly those of the module.
    """
    wanted = {name: tuple(item.shape) for name, item in module.state_dict().items()}
    found = {name: item.shape for name, item in values.items()}
    if wanted != found:
        wrong = sorted(set(wanted.items()) ^ set(found.items()))[:3]
        message = f"the checkpoint's tensors are not those of its config: {str(wrong)[:200]}"
        raise CheckpointError(message)
    state = {name: torch.from_numpy(np.array(item)).to(device) for name, item in values.items()}
    module.load_state_dict(state, assign=True)
    return module.requires_grad_(True)


def values(module: nn.Module) -> dict[str, Array]:
    """A module's tensors as float32 arrays by name."""
    return {
        name: item.detach().to("cpu", torch.float32).numpy()
        for name, item in module.state_dict().items()
    }


def initial(module: nn.Module, seed: int) -> dict[str, Array]:
    """Fresh weights, the same bits on every machine.

    Args:
        module: From `build`, or of a registered class.
        seed: The task's.

    Returns:
        Norms are one, biases zero; embeddings and a decoder's matrices have deviation 0.02 (those that write
        into the residual stream less, by the root of twice the layers); the rest 1 / sqrt(fan in).
    """
    result: dict[str, Array] = {}
    for name, item in module.state_dict().items():
        shape = tuple(item.shape)
        if len(shape) < 2:
            fresh = np.zeros if name.endswith("bias") else np.ones
            result[name] = fresh(shape, np.float32)
            continue
        deviation = 0.02
        if isinstance(module, Decoder):
            if name.endswith(RESIDUAL):
                deviation /= (2 * module.layers) ** 0.5
        else:
            # A transposed convolution (fan in, fan out, 4, 4) of stride 2 sums a quarter of its 16 taps.
            transposed = "ups." in name or "decoder.3" in name or "decoder.5" in name
            fan = shape[0] * 4 if transposed else int(np.prod(shape[1:]))
            deviation = fan**-0.5
        result[name] = philox.uniform(torch_seed("initial", seed, name), shape, deviation)
    return result
