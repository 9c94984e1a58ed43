"""Instructions: what counts as the same sentence, and refusal of what was not trained."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from mivla_policy.core.language import canonical, check_instruction, hashed_batch, hashed_tokens
from mivla_policy.errors import InstructionError


def test_spelling_carries_no_meaning() -> None:
    assert canonical('  Press the   BELL. ') == canonical('press the bell')


def test_words_are_the_same_everywhere_and_differ_from_each_other() -> None:
    tokens, mask = hashed_tokens('press the bell', 64, 8)
    assert mask.tolist() == [True] * 3 + [False] * 5
    assert set(np.unique(tokens[:3])) == {-1.0, 1.0}
    assert not tokens[3:].any()
    # A golden digest: checkpoints depend on these numbers.
    digest = hashlib.sha256(tokens.tobytes()).hexdigest()
    assert digest == (
        '16a9f01b1e4e04265101a14f61a85da5cd01a3052dfbea1bb0012089f52eb6a5')
    assert abs(tokens[0] @ tokens[2]) < 40
    again, _ = hashed_tokens('bell the press', 64, 8)
    np.testing.assert_array_equal(again[0], tokens[2])


def test_an_unknown_instruction_is_refused_with_the_known_ones() -> None:
    assert check_instruction('Press the bell!', ['press the bell']) == 'press the bell'
    with pytest.raises(InstructionError, match="'press the bell'") as caught:
        check_instruction('press the red bell', ['press the bell'])
    assert 'press the red bell' in str(caught.value)


def test_a_batch_is_as_long_as_its_longest_sentence() -> None:
    tokens, mask = hashed_batch(['press the bell', 'ring'], 16, 8)
    assert tokens.shape == (2, 3, 16)
    assert mask.tolist() == [[True, True, True], [True, False, False]]
    np.testing.assert_array_equal(tokens[1], hashed_tokens('ring', 16, 8)[0][:3])


@pytest.mark.parametrize('sentence', ['', ' .!? ', 'x' * 5000])
def test_no_sentence_at_all_is_refused(sentence: str) -> None:
    with pytest.raises(InstructionError):
        canonical(sentence)


def test_a_long_sentence_is_refused_and_not_cut_off() -> None:
    with pytest.raises(InstructionError, match='at most 2'):
        hashed_tokens('press the bell', 8, 2)
