"""Text from a language model, token by token, for whoever reads along.

A model is kept between jobs, and what it has read is kept within one: a token costs one step of one token and not
the whole context again. Where the context is full, the oldest quarter of it is let go and the rest is read anew.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from swarm.training import philox, sample
from swarm.training.completion import LENGTH, MAX_TOKENS, STOP, TOO_LONG, Completed
from swarm.training.decoders import GPTBlock, rotated, rotation
from swarm.training.finetune import Whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from swarm.training.completion import CompletionJob, Finish, Loaded
    from swarm.training.decoders import GPTAttention, LlamaAttention
    from swarm.training.sizes import Decoder as Sizes
    from swarm.training.tokens import Tokenizer

KEPT: Final = 3, 4
"""Of a full context, how much stays."""
OVERLAP: Final = 6
"""Tokens before new ones that are decoded with them: what a token's text is may hang on its neighbours."""
HELD_TOKENS: Final = 16
"""Tokens whose text is not yet whole characters are held back; more are told as they are."""


class Model:
    """A language model that is ready to continue text.

    Args:
        about: What it is.
        module: The decoder, tokens (B, T) to logits.
        sizes: Of it.
        tokenizer: Its own; None: bytes are the tokens.
        device: Where it computes.
    """

    def __init__(
        self,
        about: Loaded,
        module: nn.Module,
        sizes: Sizes,
        tokenizer: Tokenizer | None,
        device: torch.device,
    ) -> None:
        self.about = about
        self.module = module
        self.sizes = sizes
        self.tokenizer = tokenizer
        self.device = device


class Keeper:
    """The one model that a worker process keeps between jobs."""

    def __init__(self) -> None:
        self._folder = ""
        self._model: Model | None = None

    def model(self, folder: str, make: Callable[[], Model]) -> Model:
        """The model of a folder whose content never changes; the one before is let go first."""
        if self._model is None or self._folder != folder:
            self._model = None
            self._model = make()
            self._folder = folder
        return self._model


def complete(
    model: Model, job: CompletionJob, tell: Callable[[str], None], alive: Callable[[], None]
) -> Completed:
    """Continue a prompt.

    Args:
        model: Continues it.
        job: The prompt, and how it is continued; its `checkpoint` is not looked at.
        tell: Gets the text as it comes, in pieces of whole characters.
        alive: Called where a token has nothing to tell yet.
    """
    context = model.sizes.positions
    prompt = sample.encode(job.prompt, model.tokenizer)
    if job.truncate is not None:
        prompt = prompt[-min(job.truncate or context, context) :]
    if len(prompt) > context:
        return Completed(TOO_LONG, len(prompt), 0, context)
    most = min(job.max_tokens, MAX_TOKENS)
    writer = Writer(pieces(prompt, model.tokenizer), job.stops)
    made = 0
    for token in tokens(model, prompt, most, job.temperature, job.top_p, job.seed):
        made += 1
        if text := writer.add(token):
            tell(text)
        else:
            alive()
        if writer.stopped:
            break
    if not writer.stopped and (text := writer.end()):
        tell(text)
    finish: Finish = STOP if writer.stopped else LENGTH
    return Completed(finish, len(prompt), made, context)


@torch.inference_mode()
def tokens(
    model: Model, prompt: Sequence[int], most: int, temperature: float, top_p: float, seed: int
) -> Iterator[int]:
    """The tokens that follow a prompt of 1 to `context` tokens."""
    context = model.sizes.positions
    reader = Reader(model.module, model.sizes, model.device)
    draws = philox.unit(seed, most)
    seen = list(prompt)
    new = seen
    for at in range(most):
        if reader.length + len(new) > context:
            kept, of = KEPT
            reader.forget()
            new = seen[-max(1, context * kept // of) :]
        logits = reader.read(new).cpu().double().numpy()
        token = sample.pick(logits, temperature, float(draws[at]), top_p)
        seen.append(token)
        new = [token]
        yield token


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the parts of a decoder are, of one piece or frozen and trained apart."""

    tokens: nn.Embedding
    places: nn.Embedding | None  # of a GPT
    blocks: list[Any]  # GPTBlock or LlamaBlock
    norm: nn.Module
    head: Tensor  # (vocabulary, W)

    @classmethod
    def of(cls, module: nn.Module) -> Parts:
        """Those of a `GPT`, a `Llama` or a `Whole`."""
        if isinstance(module, Whole):
            front, tail = (next(one.children()) for one in (module.front, module.tail))
            head: Any = module.tail.lm_head
        else:
            front = tail = next(module.children())
            head = cast("Any", module).lm_head
        first, last = cast("Any", front), cast("Any", tail)
        is_gpt = hasattr(first, "wte")
        bodies = [first] if first is last else [first, last]
        stacks = [one.h if is_gpt else one.layers for one in bodies]
        blocks = [
            block
            for stack in stacks
            for block in (stack.values() if isinstance(stack, nn.ModuleDict) else stack)
        ]
        tokens = first.wte if is_gpt else first.embed_tokens
        norm = last.ln_f if is_gpt else last.norm
        weight = tokens.weight if head is None else head.weight
        return cls(tokens, first.wpe if is_gpt else None, blocks, norm, weight)


class Reader:
    """Reads tokens into a decoder, each once, and keeps the keys and values that later ones look at.

    Args:
        module: The decoder.
        sizes: Of it.
        device: Where it computes.
    """

    def __init__(self, module: nn.Module, sizes: Sizes, device: torch.device) -> None:
        self._parts = Parts.of(module)
        self._device = device
        self._size = sizes.width // sizes.heads
        self._rope_base = sizes.rope_base
        kv_heads = sizes.kv_heads if sizes.shape == "llama" else sizes.heads
        shape = (sizes.layers, 2, kv_heads, sizes.positions, self._size)
        self._kept = torch.empty(shape, device=device)
        self.length = 0
        """Tokens read."""

    def forget(self) -> None:
        """Read nothing so far."""
        self.length = 0

    def read(self, new: Sequence[int]) -> Tensor:
        """The logits of what follows, (vocabulary,).

        Args:
            new: One token; or any number, where nothing is read so far. All have to fit into the context.
        """
        ids = torch.tensor([list(new)], device=self._device)
        parts, end = self._parts, self.length + len(new)
        x = parts.tokens(ids)  # (1, T, W)
        if parts.places is not None:
            x = x + parts.places.weight[self.length : end]
        whole = rotation(end, self._size, self._rope_base, self._device)
        turn = whole[0][self.length :], whole[1][self.length :]
        for at, block in enumerate(parts.blocks):
            if isinstance(block, GPTBlock):
                x = x + self._gpt(at, block.attn, block.ln_1(x))
                x = x + block.mlp(block.ln_2(x))
            else:
                x = x + self._llama(at, block.self_attn, block.input_layernorm(x), turn)
                x = x + block.mlp(block.post_attention_layernorm(x))
        self.length = end
        return functional.linear(parts.norm(x[:, -1:]), parts.head)[0, 0]

    def _gpt(self, at: int, attention: GPTAttention, x: Tensor) -> Tensor:
        parts = attention.c_attn(x).unflatten(2, (3, attention.heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)  # (1, heads, T, D)
        result: Tensor = attention.c_proj(self._mixed(at, q, k, v))
        return result

    def _llama(
        self, at: int, attention: LlamaAttention, x: Tensor, turn: tuple[Tensor, Tensor]
    ) -> Tensor:
        q, k, v = (
            layer(x).unflatten(2, (-1, attention.size)).transpose(1, 2)  # (1, heads, T, D)
            for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        result: Tensor = attention.o_proj(self._mixed(at, rotated(q, turn), rotated(k, turn), v))
        return result

    def _mixed(self, at: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The values that the new tokens attend to, (1, T, W); their own keys and values are kept."""
        end = self.length + q.shape[2]
        for kept, fresh in zip(self._kept[at], (k, v), strict=True):
            kept[:, self.length : end] = fresh[0]
        keys, values = self._kept[at, :, None, :, :end]
        if (share := q.shape[1] // k.shape[1]) > 1:
            keys, values = keys.repeat_interleave(share, 1), values.repeat_interleave(share, 1)
        causal = self.length == 0 and end > 1
        mixed = functional.scaled_dot_product_attention(q, keys, values, is_causal=causal)
        return mixed.transpose(1, 2).flatten(2)


class Pieces(Protocol):
    """Tokens to text, as they come."""

    def add(self, token: int) -> str:
        """The text that is whole now."""

    def end(self) -> str:
        """The rest; what is not UTF-8 in it becomes U+FFFD."""


def pieces(prompt: Sequence[int], tokenizer: Tokenizer | None) -> Pieces:
    """What makes text of the tokens after a prompt."""
    return BytePieces() if tokenizer is None else TokenPieces(prompt, tokenizer.decode)


class BytePieces:
    """Bytes to text."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        return self._decoder.decode(bytes([token]))

    def end(self) -> str:
        return self._decoder.decode(b"", final=True)


class TokenPieces:
    """A tokenizer's tokens to text: each with a few before it, of which the text is then taken off.

    Args:
        prompt: What was before; its text is not told.
        decode: The tokenizer's.
    """

    def __init__(self, prompt: Sequence[int], decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids = list(prompt[-OVERLAP:])
        self._told = len(self._ids)

    def add(self, token: int) -> str:
        self._ids.append(token)
        fresh = self._fresh()
        if fresh.endswith("\ufffd") and len(self._ids) - self._told < HELD_TOKENS:
            return ""
        self._ids = self._ids[-OVERLAP:] if fresh else self._ids
        self._told = len(self._ids) if fresh else self._told
        return fresh

    def end(self) -> str:
        return self._fresh()

    def _fresh(self) -> str:
        head, whole = self._decode(self._ids[: self._told]), self._decode(self._ids)
        if whole.startswith(head):
            return whole[len(head) :]
        return self._decode(self._ids[self._told :])


class Writer:
    """Tells text until a stop: what may be a stop's beginning is held back until it is known.

    Args:
        made: Text of tokens.
        stops: Texts that end it and are not told.
    """

    def __init__(self, made: Pieces, stops: Sequence[str]) -> None:
        self._pieces = made
        self._stops = [one for one in stops if one]
        self._held = ""
        self.stopped = False
        """Whether a stop was met."""

    def add(self, token: int) -> str:
        """The text that one more token lets be told."""
        return self._told(self._pieces.add(token))

    def end(self) -> str:
        """The rest, where no more tokens come."""
        told = self._told(self._pieces.end())
        held, self._held = self._held, ""
        return told if self.stopped else told + held

    def _told(self, fresh: str) -> str:
        text = self._held + fresh
        ends = [at for one in self._stops if (at := text.find(one)) >= 0]
        if ends:
            self.stopped = True
            self._held = ""
            return text[: min(ends)]
        held = max((_overlap(text, one) for one in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Characters at a text's end that are the beginning of a stop."""
    for count in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:count]):
            return count
    return 0
