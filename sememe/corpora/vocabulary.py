"""A byte-pair tokenizer of one's own, trained on the text that corpora are made of."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from sememe.artefacts import is_finished, read_manifest, refuse_other, write_bytes, write_manifest
from sememe.corpora.build import build_corpus
from sememe.corpora.corpus import Corpus
from sememe.errors import UsageError
from sememe.models.tokenizer import Tokenizer
from sememe.progress import Progress

BOS = "<|bos|>"
"""The only control token, id 0, put before every text."""
SMALLEST = 257
"""Ids of the bytes and of BOS."""
BYTES = 4_000_000
"""Text that pairs are counted in."""
FILES = ("tokenizer.json", "tokenizer_config.json")


def train_tokenizer(
    out: Path,
    vocabulary: int,
    *,
    sources: Sequence[str] | None = None,
    seed: int = 0,
    held_out: float = 0.05,
    progress: Progress | None = None,
) -> Tokenizer:
    """Write a byte-level byte-pair tokenizer of ``vocabulary`` ids to ``out``, and return it.

    Its pairs are those of about four megabytes of ``sources``, which are mixed as in
    :func:`~sememe.corpora.build.build_corpus` of the same arguments and kept as a corpus of bytes
    in ``out``/bytes; documents that are held out there are not looked at. What is there already is
    returned. Raises UsageError for fewer ids than there are bytes, SememeError for another ``out``.
    """
    if vocabulary < SMALLEST:
        raise UsageError(f"vocabulary is {vocabulary}; expected {SMALLEST} or more")
    progress = progress or Progress()
    text = build_corpus(
        out / "bytes",
        byte_tokenizer(),
        tokens=BYTES,
        sources=sources,
        seed=seed,
        held_out=held_out,
        progress=progress,
    )
    config, made_from = {"vocabulary": vocabulary}, {"corpus": text.hash}
    if is_finished(out):
        found = read_manifest(out, "tokenizer")
        refuse_other(out, {**config, **made_from}, {**found["config"], **found["made_from"]})
        return Tokenizer.open(out)
    progress.say(f"training a tokenizer of {vocabulary:,} ids")
    backend = _backend(models.BPE())
    backend.train_from_iterator(
        _texts(text),
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[BOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, 0)]
    )
    save_tokenizer(Tokenizer(backend), out)
    write_manifest(out, "tokenizer", config=config, made_from=made_from, files=FILES)
    return Tokenizer.open(out)


def save_tokenizer(tokenizer: Tokenizer, out: Path) -> None:
    """Write the files by which transformers and sememe know a tokenizer."""
    facts: dict[str, str] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if tokenizer.bos is not None:
        bos = tokenizer.bytes_of[tokenizer.bos].decode()
        facts |= {"bos_token": bos, "eos_token": bos}
    write_bytes(out / FILES[0], tokenizer.to_json().encode())
    write_bytes(out / FILES[1], (json.dumps(facts, indent=2) + "\n").encode())


def byte_tokenizer() -> Tokenizer:
    """Return the tokenizer whose tokens are single bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {character: number for number, character in enumerate(alphabet)}
    return Tokenizer(_backend(models.BPE(vocab=ids, merges=[])))


def _backend(model: models.BPE) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _texts(corpus: Corpus) -> Iterator[str]:
    """Yield the training documents of a corpus of bytes as text."""
    bytes_of = byte_tokenizer().bytes_of
    for document in np.flatnonzero(corpus.held_out == 0):
        start = int(corpus.start[document])
        ids = corpus.tokens(start, start + int(corpus.length[document]))
        # a document that is cut in parts may be cut inside a character
        yield b"".join(bytes_of[index] for index in ids).decode(errors="ignore")
