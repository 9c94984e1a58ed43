"""
Instructions as tokens, without a language model.

Every word becomes a fixed pseudo-random unit vector made from its hash: the same on every
machine, nothing to download, and different sentences stay different. It carries no meaning
between words, so a policy refuses sentences that it was not trained on (``check_instruction``)
instead of guessing. A cached embedding of a real language model has the same shape (tokens,
width) and takes this module's place in the larger presets.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mivla_policy.errors import InstructionError

__all__ = ['canonical', 'check_instruction', 'hashed_batch', 'hashed_tokens']

MAX_CHARACTERS = 1000


def canonical(instruction: str) -> str:
    """
    Return the instruction as it is compared: lower case, words separated by one space.

    Case, punctuation and spacing carry no meaning. Raises InstructionError when no word is
    left, or the sentence is longer than ``MAX_CHARACTERS``.
    """
    if len(instruction) > MAX_CHARACTERS:
        raise InstructionError(
            f'instruction of {len(instruction)} characters; at most {MAX_CHARACTERS} are read')
    words = re.findall(r'\w+', instruction.casefold())
    if not words:
        raise InstructionError(f'instruction {instruction!r} has no word in it; say what to do')
    return ' '.join(words)


def check_instruction(instruction: str, known: Sequence[str]) -> str:
    """
    Return the canonical instruction, or raise InstructionError when it is not a known one.

    :param known: the instructions of the training set, in any spelling.
    """
    text = canonical(instruction)
    if text not in {canonical(k) for k in known}:
        raise InstructionError(
            f'instruction {instruction!r} was not in the training of this policy; '
            f'it knows: {", ".join(repr(k) for k in known)}')
    return text


def hashed_tokens(instruction: str, width: int,
                  max_tokens: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """
    Return one token per word and the mask of those that are there.

    :param width: numbers per token.
    :param max_tokens: rows returned; a longer sentence raises InstructionError, because cutting
        it off would drop its meaning silently.
    :return: float32 (max_tokens, width) with rows of length sqrt(width) (0 where absent), and
        bool (max_tokens,).
    """
    words = canonical(instruction).split()
    if len(words) > max_tokens:
        raise InstructionError(
            f'instruction of {len(words)} words; this policy reads at most {max_tokens}')
    tokens = np.zeros((max_tokens, width), dtype=np.float32)
    for row, word in enumerate(words):
        tokens[row] = _word_vector(word, width)
    return tokens, np.arange(max_tokens) < len(words)


def hashed_batch(instructions: Sequence[str], width: int,
                 max_tokens: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """
    Return the tokens of several instructions, cut to the longest of them.

    :return: float32 (B, L, width) and bool (B, L), L <= max_tokens.
    """
    parts = [hashed_tokens(text, width, max_tokens) for text in instructions]
    mask = np.stack([present for _, present in parts])
    longest = int(mask.sum(axis=1).max())
    return np.stack([tokens for tokens, _ in parts])[:, :longest], mask[:, :longest]


def _word_vector(word: str, width: int) -> NDArray[np.float32]:
    """Return (width,) signs +-1 from the word's hash."""
    # Bits of a hash, not a seeded generator: NumPy may change its streams between versions.
    digest = hashlib.shake_128(word.encode('utf-8')).digest((width + 7) // 8)
    bits = np.unpackbits(np.frombuffer(digest, dtype=np.uint8))[:width]
    return bits.astype(np.float32) * 2.0 - 1.0
