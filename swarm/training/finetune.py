"""A frozen base and final layers: the decoder of a task of kind finetune, in two parts.

    Front   embeddings and the first blocks, frozen: tokens to hidden states
    Tail    the last `trained_blocks` blocks, the last norm and a head of its own: hidden states to logits

Their tensors have the names that `transformers` gives them in the whole model; the head is untied from the embeddings,
which stay as they are. A checkpoint holds each part in a file of its own (`checkpoint`): the task's parameters are the
tail's alone, and the front's file is the same from the first version to the last.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor, nn

from swarm.training import bases, checkpoint, tensors
from swarm.training.decoders import GPTBlock, LlamaBlock, rotation
from swarm.training.drawers import Drawers
from swarm.training.encodings import EncodedText, record
from swarm.training.errors import CheckpointError, DataError
from swarm.training.text import identity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from swarm.training.data import TextData
    from swarm.training.sizes import FinetuneModel, LmModel
    from swarm.training.tensors import Array

KEPT_DIGESTS: Final = 16


class _GPTFront(nn.Module):
    def __init__(self, sizes: FinetuneModel) -> None:
        super().__init__()
        self.wte = nn.Embedding(sizes.vocabulary, sizes.width)
        self.wpe = nn.Embedding(sizes.positions, sizes.width)
        self.h = nn.ModuleDict({str(at): GPTBlock(sizes) for at in range(sizes.frozen_blocks)})

    def forward(self, tokens: Tensor) -> Tensor:
        x: Tensor = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for block in self.h.values():
            x = block(x)
        return x


class _GPTTail(nn.Module):
    def __init__(self, sizes: FinetuneModel) -> None:
        super().__init__()
        last = range(sizes.frozen_blocks, sizes.layers)
        self.h = nn.ModuleDict({str(at): GPTBlock(sizes) for at in last})
        self.ln_f = nn.LayerNorm(sizes.width, sizes.norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.h.values():
            x = block(x)
        result: Tensor = self.ln_f(x)
        return result


class _LlamaFront(nn.Module):
    def __init__(self, sizes: FinetuneModel) -> None:
        super().__init__()
        self.size, self.rope_base = sizes.width // sizes.heads, sizes.rope_base
        self.embed_tokens = nn.Embedding(sizes.vocabulary, sizes.width)
        self.layers = nn.ModuleDict(
            {str(at): LlamaBlock(sizes) for at in range(sizes.frozen_blocks)}
        )

    def forward(self, tokens: Tensor) -> Tensor:
        x: Tensor = self.embed_tokens(tokens)
        angles = rotation(tokens.shape[1], self.size, self.rope_base, tokens.device)
        for block in self.layers.values():
            x = block(x, angles)
        return x


class _LlamaTail(nn.Module):
    def __init__(self, sizes: FinetuneModel) -> None:
        super().__init__()
        self.size, self.rope_base = sizes.width // sizes.heads, sizes.rope_base
        last = range(sizes.frozen_blocks, sizes.layers)
        self.layers = nn.ModuleDict({str(at): LlamaBlock(sizes) for at in last})
        self.norm = nn.RMSNorm(sizes.width, sizes.norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        angles = rotation(x.shape[1], self.size, self.rope_base, x.device)
        for block in self.layers.values():
            x = block(x, angles)
        result: Tensor = self.norm(x)
        return result


class Front(nn.Module):
    """The frozen part: tokens (B, T) to hidden states (B, T, W)."""

    def __init__(self, sizes: FinetuneModel) -> None:
        super().__init__()
        if sizes.shape == "llama":
            self.model = _LlamaFront(sizes)
        else:
            self.transformer = _GPTFront(sizes)

    def forward(self, tokens: Tensor) -> Tensor:
        body = next(self.children())
        result: Tensor = body(tokens)
        return result


class Tail(nn.Module):
    """The trained part: hidden states (B, T, W) to logits (B, T, vocabulary)."""

    def __init__(self, sizes: FinetuneModel) -> None:
        super().__init__()
        self.transposed = sizes.shape == "gpt"  # whether its matrices are (in, out)
        if sizes.shape == "llama":
            self.model = _LlamaTail(sizes)
        else:
            self.transformer = _GPTTail(sizes)
        self.lm_head = nn.Linear(sizes.width, sizes.vocabulary, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        body = next(self.children())
        result: Tensor = self.lm_head(body(states))
        return result


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape by name of a module's tensors."""
    return {name: tuple(item.shape) for name, item in module.state_dict().items()}


def split(folder: Path, sizes: FinetuneModel) -> tuple[dict[str, Array], dict[str, Array]]:
    """A published base as (what stays, as it is stored; what is trained, as float32).

    Raises:
        SpecError: The base does not hold what its config says.
    """
    found = bases.weights(folder, sizes)
    with torch.device("meta"):
        wanted = shapes(Front(sizes)), shapes(Tail(sizes))
    frozen = bases.take(found, wanted[0])
    trained = bases.take(found, wanted[1])
    return frozen, bases.floats(trained)


def whole(folder: Path, sizes: LmModel, module: nn.Module) -> dict[str, Array]:
    """The weights of a published base of which all is trained, as float32.

    Args:
        folder: The base.
        sizes: Its own, as the task has them.
        module: Of those sizes.

    Raises:
        SpecError: The base does not hold what its config says.
    """
    return bases.floats(bases.take(bases.weights(folder, sizes), shapes(module)))


class Encoder:
    """The frozen part, loaded when the first sample has to be encoded.

    Args:
        sizes: Of the base.
        frozen: Gives its tensors, as they are stored.
        device: Where to compute.
    """

    def __init__(
        self,
        sizes: FinetuneModel,
        frozen: Callable[[], Mapping[str, Array]],
        device: torch.device,
    ) -> None:
        self._sizes = sizes
        self._frozen = frozen
        self._device = device
        self._front: Front | None = None

    def __call__(self, tokens: Array) -> Array:
        """Tokens (T,) to vectors (T, W), float32."""
        batch = torch.from_numpy(np.asarray(tokens, np.int64))[None].to(self._device)
        if int(batch.max()) >= self._sizes.vocabulary:
            message = (
                f"a token is {int(batch.max()):,}, and the base reads {self._sizes.vocabulary:,}"
            )
            raise DataError(message)
        with torch.inference_mode():
            states: Array = self.front(batch)[0].cpu().numpy()
        return states

    @property
    def front(self) -> Front:
        """The module.

        Raises:
            CheckpointError: The tensors are not those of the frozen part.
        """
        if self._front is None:
            with torch.device("meta"):
                front = Front(self._sizes)
            frozen = self._frozen()
            if shapes(front) != {name: item.shape for name, item in frozen.items()}:
                message = "the checkpoint does not hold the frozen part of its base"
                raise CheckpointError(message)
            state = {
                name: torch.from_numpy(bases.as_float(item)).to(self._device)
                for name, item in frozen.items()
            }
            front.load_state_dict(state, assign=True)
            self._front = front.requires_grad_(requires_grad=False)
        return self._front


class Encoders:
    """What a worker process keeps between jobs: the last frozen part, and encodings on the disk.

    Args:
        drawers: Where encodings are kept.
    """

    def __init__(self, drawers: Drawers | None = None) -> None:
        self._drawers = drawers or Drawers()
        self._digests: dict[str, str] = {}
        self._last: tuple[str, Encoder] | None = None

    def allow(self, limit: int) -> None:
        """Let encodings take so many bytes of disk from now on."""
        self._drawers.limit = limit

    def of(self, folder: Path, sizes: FinetuneModel, device: torch.device) -> Encoder:
        """The frozen part of a checkpoint."""
        paths = checkpoint.frozen_files(folder)
        key = f"{self._digest(paths)} {sizes}"
        if self._last is None or self._last[0] != key:
            self._last = key, Encoder(sizes, partial(_read, paths), device)
        return self._last[1]

    def encoded(
        self,
        text: TextData,
        folder: Path,
        sizes: FinetuneModel,
        name: str,
        device: torch.device,
        alive: Callable[[], None],
    ) -> EncodedText:
        """A dataset's encodings; those that an earlier job made are read.

        Args:
            text: The dataset.
            folder: The checkpoint.
            sizes: Of its base.
            name: The dataset's: its CID where the node took it from the network.
            device: Where to compute.
            alive: Called after each sample that is encoded.
        """
        frozen = self._digest(checkpoint.frozen_files(folder))
        key = hashlib.sha256(f"{frozen}\0{sizes}\0{name}".encode()).hexdigest()
        drawer = self._drawers.open(key, record(sizes.width, sizes.context))
        return EncodedText(text, sizes, self.of(folder, sizes, device), drawer, alive)

    def _digest(self, paths: Sequence[Path]) -> str:
        """SHA-256 of the frozen files, joined by a space; remembered while the files stay as they are."""
        try:
            key = identity(paths)
            if key not in self._digests:
                self._digests[key] = " ".join(map(_sha256, paths))
        except OSError as error:
            message = f"the frozen part cannot be read: {error.strerror}"
            raise CheckpointError(message) from error
        while len(self._digests) > KEPT_DIGESTS:
            del self._digests[next(iter(self._digests))]
        return self._digests[key]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(paths: Sequence[Path]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for path in paths:
        found |= checkpoint.read_tensors(path, tensors.WIDE)
    return found


class Whole(nn.Module):
    """Both parts: tokens (B, T) to logits (B, T, vocabulary), for inference."""

    def __init__(self, front: Front, tail: nn.Module) -> None:
        super().__init__()
        self.front = front
        self.tail = tail

    def forward(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.tail(self.front(tokens))
        return result
