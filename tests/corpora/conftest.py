"""A tokenizer small enough to reason about, and text that nobody wrote."""

import random

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from sememe.models.tokenizer import Tokenizer
from sememe.progress import Progress


def make_tokenizer() -> Tokenizer:
    """Bytes, and merges of a few pairs of letters, so that tokens are not all one byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: place for place, letter in enumerate(alphabet)}
    merges = [("t", "h"), ("e", "r"), ("i", "n"), ("Ġ", "a")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return make_tokenizer()


class Notes(Progress):
    """Keeps what was said."""

    def __init__(self):
        self.said: list[str] = []

    def say(self, message):
        self.said.append(message)


@pytest.fixture
def notes() -> Notes:
    return Notes()


def prose(seed: int, words: int) -> str:
    """Text of invented words, none like another seed's."""
    draw = random.Random(seed)
    letters = "abcdefghijklmnoprstuvwz"
    made = ["".join(draw.choices(letters, k=draw.randint(1, 9))) for _ in range(words)]
    return " ".join(made)
