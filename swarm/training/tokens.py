"""Published tokenizers: `tokenizer.json` files as the `tokenizers` library writes them, and text as their ids.

Such a file comes from a stranger: its size is bounded before it is read, its tables before the library builds
anything of them, and what the library cannot do is an error that names the cause.
Only the worker process loads the library; a pattern that takes for ever is stopped with the process, by the
supervisor's limits, because the library lets go of the interpreter while it encodes and decodes a batch.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from swarm.training.errors import DataError, SpecError
from swarm.training.memory import bounded_memory
from swarm.training.spec import MAX_TOKENIZER_BYTES, MAX_VOCABULARY
from swarm.training.text import identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import tokenizers

    from swarm.training.tensors import Array

MAX_ADDED: Final = 2**13
"""Tokens beside the model's own, special ones among them."""
MAX_ADDED_CHARACTERS: Final = 2**18
"""Of all added tokens: the library builds an automaton of them, slowly and of a hundred bytes a character."""
PIECE_BYTES: Final = 2**16
"""Text is encoded in pieces of at most so many bytes; part of the definition of a dataset's tokens."""
PIECES: Final = 16
"""Encoded at once."""
MAX_ID_BYTES: Final = 2**30
"""Token ids of a dataset are held in memory; more than this many bytes of them are refused."""
CACHE_BYTES: Final = 2 * MAX_ID_BYTES
"""Ids kept between jobs: room for the largest dataset and its pool."""
KEPT_TOKENIZERS: Final = 4
KEPT_BEGUN: Final = 2
"""Datasets of which a part is encoded."""


class Tokenizer:
    """A checked tokenizer.

    Args:
        content: The file.

    Raises:
        SpecError: It is too large, is none, chooses tokens at random, or its ids are not 0 to its vocabulary less one.
    """

    def __init__(self, content: bytes) -> None:
        text = _checked(content)
        from tokenizers import (
            Tokenizer as Library,
        )  # a tenth of a second that tasks over bytes do without

        with _contained("cannot be loaded"):
            self._library: tokenizers.Tokenizer = Library.from_str(text)
            self._library.no_truncation()
            self._library.no_padding()
            ids = sorted(self._library.get_vocab(with_added_tokens=True).values())
        self.vocabulary = len(ids)
        """How many tokens there are."""
        if not 0 < self.vocabulary <= MAX_VOCABULARY:
            raise _refused(
                why=f"has {self.vocabulary:,} tokens, 1 to {MAX_VOCABULARY:,} are allowed"
            )
        if ids != list(range(self.vocabulary)):
            raise _refused(
                why=f"has {self.vocabulary:,} tokens whose ids are not 0 to {self.vocabulary - 1:,}"
            )
        self.dtype: np.dtype[Any] = np.dtype("<u2" if self.vocabulary <= 2**16 else "<u4")
        """Of the ids."""
        self.digest = hashlib.sha256(content).digest()

    def encode(self, pieces: Sequence[str]) -> Array:
        """The ids of pieces of text, encoded each by itself and joined; shape (N,), of type `dtype`.

        Raises:
            SpecError: The library cannot encode the text, or gave an id beyond the vocabulary.
        """
        with _contained("cannot encode this text"):
            found = self._library.encode_batch_fast(list(pieces), add_special_tokens=False)
        ids = np.concatenate(
            [np.zeros(0, np.int64), *(np.array(one.ids, np.int64) for one in found)]
        )
        if len(ids) and int(ids.max()) >= self.vocabulary:
            raise _refused(why=f"gives the id {int(ids.max()):,} with {self.vocabulary:,} tokens")
        return ids.astype(self.dtype)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; what is not UTF-8 becomes U+FFFD."""
        with _contained("cannot decode its own tokens"):
            text: str = self._library.decode_batch([list(ids)], skip_special_tokens=False)[0]
        return text


class Cache:
    """What a worker process keeps between jobs: tokenizers, and the ids of datasets.

    Args:
        limit: Bytes of ids; the datasets that were not used for longest go first.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._tokenizers: OrderedDict[bytes, Tokenizer] = OrderedDict()
        self._ids: OrderedDict[bytes, Array] = OrderedDict()
        self._begun: OrderedDict[bytes, _Encoding] = OrderedDict()

    @property
    def held(self) -> int:
        """Bytes of ids."""
        return sum(ids.nbytes for ids in self._ids.values())

    def tokenizer(self, content: bytes) -> Tokenizer:
        """The tokenizer of a file's content.

        Raises:
            SpecError: As `Tokenizer`.
        """
        key = hashlib.sha256(content).digest()
        if key not in self._tokenizers:
            self._tokenizers[key] = Tokenizer(content)
        self._tokenizers.move_to_end(key)
        while len(self._tokenizers) > KEPT_TOKENIZERS:
            self._tokenizers.popitem(last=False)
        return self._tokenizers[key]

    def ids(self, tokenizer: Tokenizer, paths: Sequence[Path], alive: Callable[[], None]) -> Array:
        """The ids of files in order; encoded once as long as the files stay as they are.

        Args:
            tokenizer: Encodes.
            paths: The files.
            alive: Called after each batch of pieces, so that the job can be given up.

        Raises:
            SpecError: As `Tokenizer.encode`.
            DataError: More than `MAX_ID_BYTES` of ids.
        """
        key = tokenizer.digest + identity(paths).encode()
        if key not in self._ids:
            self._ids[key] = self._encode(key, tokenizer, paths, alive)
        self._ids.move_to_end(key)
        while len(self._ids) > 1 and self.held > self._limit:
            self._ids.popitem(last=False)
        return self._ids[key]

    def _encode(
        self, key: bytes, tokenizer: Tokenizer, paths: Sequence[Path], alive: Callable[[], None]
    ) -> Array:
        """All ids; what a job that is given up has encoded, the next one goes on with."""
        encoding = self._begun.pop(key, None) or _Encoding(tokenizer, paths)
        while encoding.step():
            self._begun[key] = encoding
            while len(self._begun) > KEPT_BEGUN:
                self._begun.popitem(last=False)
            alive()
            del self._begun[key]
        return encoding.ids()


def encode_files(tokenizer: Tokenizer, paths: Sequence[Path]) -> Array:
    """The ids of files, each file's after those of the one before; see `Cache.ids`."""
    encoding = _Encoding(tokenizer, paths)
    while encoding.step():
        pass
    return encoding.ids()


class _Encoding:
    """The ids of files as far as they have been encoded."""

    def __init__(self, tokenizer: Tokenizer, paths: Sequence[Path]) -> None:
        self._tokenizer = tokenizer
        self._pieces = (piece for path in paths for piece in _pieces(path))
        self._found = bytearray()

    def step(self) -> bool:
        """Encode the next batch; False when there was none left."""
        batch = list(itertools.islice(self._pieces, PIECES))
        if batch:
            self._found.extend(self._tokenizer.encode(batch).tobytes())
        if len(self._found) > MAX_ID_BYTES:
            message = f"the dataset has more than {MAX_ID_BYTES:,} bytes of token ids"
            raise DataError(message)
        return bool(batch)

    def ids(self) -> Array:
        return np.frombuffer(self._found, self._tokenizer.dtype)


def _pieces(path: Path) -> Iterator[str]:
    """A file's text, cut after the last line end of each 64 KiB; without one, between two characters."""
    with path.open("rb") as file:
        rest = b""
        while block := rest + file.read(PIECE_BYTES - len(rest)):
            end = len(block) if len(block) < PIECE_BYTES else _cut(block)
            yield block[:end].decode(errors="replace")
            rest = block[end:]


def _cut(block: bytes) -> int:
    if line_end := block.rfind(b"\n") + 1:
        return line_end
    for back in range(1, 4):  # a character of UTF-8 that goes on behind the block
        if (first := block[-back]) >= 0xC0:
            size = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
            return len(block) - back if size > back else len(block)
    return len(block)


def _checked(content: bytes) -> str:
    """The file as JSON with its tables within their bounds, written anew: what is checked is what is loaded."""
    if len(content) > MAX_TOKENIZER_BYTES:
        raise _refused(why=f"has more than {MAX_TOKENIZER_BYTES:,} bytes")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _refused(why=f"is not JSON: {error}") from error
    model = value.get("model") if isinstance(value, dict) else None
    if not isinstance(model, dict):
        raise _refused(why="holds no model")
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict | list) or len(vocabulary) > MAX_VOCABULARY:
        raise _refused(why=f"holds no vocabulary of at most {MAX_VOCABULARY:,} tokens")
    if any(model.get(key) for key in ("dropout", "alpha", "nbest_size")):
        raise _refused(why="chooses tokens at random, so that no two machines would agree")
    added = value.get("added_tokens") or []
    if not isinstance(added, list) or len(added) > MAX_ADDED:
        raise _refused(why=f"adds more than {MAX_ADDED:,} tokens")
    if (
        sum(len(str(one.get("content"))) for one in added if isinstance(one, dict))
        > MAX_ADDED_CHARACTERS
    ):
        raise _refused(why=f"adds tokens of more than {MAX_ADDED_CHARACTERS:,} characters")
    return json.dumps(value)


@contextlib.contextmanager
def _contained(what: str) -> Iterator[None]:
    """Make an error of the library one that names the tokenizer, and bound the memory that it takes."""
    try:
        with bounded_memory():
            yield
    except (MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of the library is no Exception
        raise _refused(why=f"{what}: {str(error)[:300]}") from error


def _refused(why: str) -> SpecError:
    return SpecError("data.tokenizer", why)
