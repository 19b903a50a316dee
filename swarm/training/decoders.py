"""Language models: decoders over tokens whose tensors are those of the models that `transformers` loads.

`GPT` is GPT-2 (Radford et al., 2019) as `GPT2LMHeadModel` has it, and `Llama` is Llama (Touvron et al., 2023) as
`LlamaForCausalLM` has it, without dropout, and with tied embeddings unless a published model says otherwise: the same names, the same layouts, the same
function. So a checkpoint needs no conversion; `hf` writes the config that says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from swarm.training.sizes import Decoder as Sizes
    from swarm.training.sizes import LmModel

RESIDUAL = (".c_proj.weight", ".o_proj.weight", ".down_proj.weight")
"""How the names end of matrices that write into the residual stream."""


class Affine(nn.Module):
    """A linear layer whose weight is (in, out), as GPT-2 has it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight.T, self.bias)


class GPTAttention(nn.Module):
    """Causal self-attention with q, k and v in one matrix."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.c_attn = Affine(sizes.width, 3 * sizes.width)
        self.c_proj = Affine(sizes.width, sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        parts = self.c_attn(x).view(batch, time, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, T, D)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        result: Tensor = self.c_proj(mixed.transpose(1, 2).reshape(batch, time, width))
        return result


class GPTPerceptron(nn.Module):
    """Two layers with a GELU, approximated as GPT-2 does."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.c_fc = Affine(sizes.width, sizes.hidden)
        self.c_proj = Affine(sizes.hidden, sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.c_proj(functional.gelu(self.c_fc(x), approximate="tanh"))
        return result


class GPTBlock(nn.Module):
    """Attention, then a perceptron, each behind a norm and beside the residual stream."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(sizes.width, sizes.norm_epsilon)
        self.attn = GPTAttention(sizes)
        self.ln_2 = nn.LayerNorm(sizes.width, sizes.norm_epsilon)
        self.mlp = GPTPerceptron(sizes)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        result: Tensor = x + self.mlp(self.ln_2(x))
        return result


class GPTBody(nn.Module):
    """Tokens (B, T) to hidden states (B, T, W)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.wte = nn.Embedding(sizes.vocabulary, sizes.width)
        self.wpe = nn.Embedding(sizes.positions, sizes.width)
        self.h = nn.ModuleList(GPTBlock(sizes) for _ in range(sizes.layers))
        self.ln_f = nn.LayerNorm(sizes.width, sizes.norm_epsilon)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for block in self.h:
            x = block(x)
        result: Tensor = self.ln_f(x)
        return result


class GPT(nn.Module):
    """A decoder of the shape of GPT-2."""

    transposed = True  # its matrices are (in, out)

    def __init__(self, sizes: LmModel) -> None:
        super().__init__()
        self.layers = sizes.layers
        self.transformer = GPTBody(sizes)
        self.lm_head = _head(sizes)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) token ids to (B, T, vocabulary) logits."""
        head = self.transformer.wte if self.lm_head is None else self.lm_head
        return functional.linear(self.transformer(tokens), head.weight)


class LlamaAttention(nn.Module):
    """Causal self-attention with rotated positions; several queries may share a key and a value."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.size = sizes.width // sizes.heads
        shared = self.size * sizes.kv_heads
        self.q_proj = nn.Linear(sizes.width, sizes.width, bias=False)
        self.k_proj = nn.Linear(sizes.width, shared, bias=False)
        self.v_proj = nn.Linear(sizes.width, shared, bias=False)
        self.o_proj = nn.Linear(sizes.width, sizes.width, bias=False)
        self.share = sizes.heads // sizes.kv_heads

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        q, k, v = (
            layer(x).unflatten(2, (-1, self.size)).transpose(1, 2)  # (B, heads, T, D)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotated(q, turn), rotated(k, turn)
        if self.share > 1:
            k, v = k.repeat_interleave(self.share, 1), v.repeat_interleave(self.share, 1)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        result: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return result


class LlamaPerceptron(nn.Module):
    """SwiGLU: what one matrix says is weighed by what another one says."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(sizes.width, sizes.hidden, bias=False)
        self.up_proj = nn.Linear(sizes.width, sizes.hidden, bias=False)
        self.down_proj = nn.Linear(sizes.hidden, sizes.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return result


class LlamaBlock(nn.Module):
    """Attention, then a perceptron, each behind a norm and beside the residual stream."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(sizes.width, sizes.norm_epsilon)
        self.self_attn = LlamaAttention(sizes)
        self.post_attention_layernorm = nn.RMSNorm(sizes.width, sizes.norm_epsilon)
        self.mlp = LlamaPerceptron(sizes)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turn)
        result: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return result


class LlamaBody(nn.Module):
    """Tokens (B, T) to hidden states (B, T, W)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.size = sizes.width // sizes.heads
        self.rope_base = sizes.rope_base
        self.embed_tokens = nn.Embedding(sizes.vocabulary, sizes.width)
        self.layers = nn.ModuleList(LlamaBlock(sizes) for _ in range(sizes.layers))
        self.norm = nn.RMSNorm(sizes.width, sizes.norm_epsilon)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed_tokens(tokens)
        angles = rotation(tokens.shape[1], self.size, self.rope_base, tokens.device)
        for block in self.layers:
            x = block(x, angles)
        result: Tensor = self.norm(x)
        return result


class Llama(nn.Module):
    """A decoder of the shape of Llama."""

    transposed = False

    def __init__(self, sizes: LmModel) -> None:
        super().__init__()
        self.layers = sizes.layers
        self.model = LlamaBody(sizes)
        self.lm_head = _head(sizes)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) token ids to (B, T, vocabulary) logits."""
        head = self.model.embed_tokens if self.lm_head is None else self.lm_head
        return functional.linear(self.model(tokens), head.weight)


def _head(sizes: LmModel) -> nn.Linear | None:
    """A head of its own; None where the embeddings are it."""
    return None if sizes.tied else nn.Linear(sizes.width, sizes.vocabulary, bias=False)


Decoder: TypeAlias = GPT | Llama


def decoder(sizes: LmModel) -> Decoder:
    """The module of a task's model."""
    return Llama(sizes) if sizes.shape == "llama" else GPT(sizes)


def is_block_matrix(name: str, item: Tensor) -> bool:
    """Whether a parameter is a matrix inside a block, and no embedding."""
    return item.ndim == 2 and name.startswith(("transformer.h.", "model.layers."))


def rotation(time: int, size: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angle of each position and dimension, (T, D) each; the two halves of D are alike."""
    steps = torch.arange(0, size, 2, dtype=torch.float32, device=device) / size
    places = torch.arange(time, dtype=torch.float32, device=device)
    angles = places[:, None] * (1.0 / base**steps)
    angles = torch.cat((angles, angles), 1)
    return angles.cos(), angles.sin()


def rotated(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Queries or keys (…, T, D) turned by the angles of `rotation`."""
    first, second = x.chunk(2, -1)
    return x * turn[0] + torch.cat((-second, first), -1) * turn[1]
