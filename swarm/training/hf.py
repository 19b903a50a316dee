"""What makes a checkpoint folder one that `transformers` loads: its config, and the tokenizers' files.

Everything is a function of the model's sizes, so that the folder keeps its CID on every machine.
The tensors need no conversion (`decoders`); their file says `format: pt` as that library asks.

Source: the configs `GPT2Config` and `LlamaConfig` of transformers 4 and 5; for the alphabet of bytes,
`bytes_to_unicode` of GPT-2 (Radford et al., 2019).
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from swarm.training.sizes import FinetuneModel, LmModel

if TYPE_CHECKING:
    from swarm.training.sizes import Decoder

TENSOR_METADATA: Final = {"format": "pt"}


def config(model: Decoder) -> dict[str, Any]:
    """The keys of `config.json` that `transformers` reads."""
    shared: dict[str, Any] = {
        "bos_token_id": None,
        "eos_token_id": None,
        "tie_word_embeddings": isinstance(model, LmModel) and model.tied,
        "vocab_size": model.vocabulary,
    }
    if isinstance(model, FinetuneModel):
        shared["torch_dtype"] = "float32"  # the base's tensors may be of another
    return shared | (_llama(model) if model.shape == "llama" else _gpt(model))


def _gpt(model: Decoder) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "layer_norm_epsilon": model.norm_epsilon,
        "n_embd": model.width,
        "n_head": model.heads,
        "n_inner": model.hidden,
        "n_layer": model.layers,
        "n_positions": model.positions,
    }


def _llama(model: Decoder) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "head_dim": model.width // model.heads,
        "hidden_act": "silu",
        "hidden_size": model.width,
        "intermediate_size": model.hidden,
        "max_position_embeddings": model.positions,
        "mlp_bias": False,
        "num_attention_heads": model.heads,
        "num_hidden_layers": model.layers,
        "num_key_value_heads": model.kv_heads,
        "rms_norm_eps": model.norm_epsilon,
        "rope_theta": model.rope_base,
    }


def tokenizer_config(model: Decoder) -> dict[str, Any]:
    """What `tokenizer_config.json` says: read `tokenizer.json` as it is."""
    return {
        "clean_up_tokenization_spaces": False,
        "model_max_length": model.positions,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


@cache
def byte_tokenizer() -> bytes:
    """The `tokenizer.json` of a model over bytes: 256 tokens without merges, where a byte's id is its value."""
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    value: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {letter: byte for byte, letter in enumerate(_letters())},
            "merges": [],
        },
    }
    return text(value)


def text(value: dict[str, Any]) -> bytes:
    """JSON in the one spelling of a checkpoint's files."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=True) + "\n").encode()


def _letters() -> list[str]:
    """A printable letter for each byte: itself where it is one in Latin-1, else the next from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
