"""A key as 24 words that a person can write down, in the way of BIP-39; no passphrase, and no wallet's derivation.

The words are the key's 32 secret bytes and a checksum of 8 bits.
Source: https://github.com/bitcoin/bips/blob/master/bip-0039.mediawiki, with its English list.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from swarm.errors import UsageError

if TYPE_CHECKING:
    from mnemonic import Mnemonic

COUNT: Final = 24
MAX_CHARACTERS: Final = 1_024


@functools.cache
def _language() -> Mnemonic:
    from mnemonic import Mnemonic

    return Mnemonic("english")


def words_of(seed: bytes) -> list[str]:
    """The words of a key's 32 secret bytes."""
    return _language().to_mnemonic(seed).split()


def seed_of(text: str) -> bytes:
    """The 32 secret bytes of 24 words; case, and what stands between them, do not matter.

    Raises:
        UsageError: They are not 24 words of the list, or the checksum is wrong; no word is repeated in the message.
    """
    words = text[:MAX_CHARACTERS].lower().split()
    if len(words) != COUNT:
        message = f"{len(words)} words where {COUNT} are due"
        raise UsageError(message)
    known = frozenset(_language().wordlist)
    unknown = [at for at, word in enumerate(words, 1) if word not in known]
    if unknown:
        places = ", ".join(map(str, unknown))
        message = f"not in the list of words: number {places}"
        raise UsageError(message, "look for a letter that was misread")
    if not _language().check(" ".join(words)):
        message = "the words do not belong together: one is wrong, or their order is"
        raise UsageError(message)
    return bytes(_language().to_entropy(" ".join(words)))
