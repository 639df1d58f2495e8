"""A family of small language models, trained with more and more compute on the same text.

Each member has about as many tokens for each weight as the others, so that compute is spent alike.
They have a byte-pair tokenizer of their own, a small one: with the tens of thousands of ids that
large models have, nearly all compute of a small model would go into its logits. Their losses are
therefore in nats a byte of text, which can be compared with those of any model.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from sememe.artefacts import (
    begin,
    cache_folder,
    fingerprint,
    is_finished,
    read_manifest,
    verify_files,
    write_manifest,
)
from sememe.corpora.build import build_corpus
from sememe.corpora.corpus import Corpus
from sememe.corpora.inputs import resolve
from sememe.corpora.vocabulary import train_tokenizer
from sememe.errors import SememeError, UsageError
from sememe.models.language_model import LanguageModel
from sememe.models.load import load_model
from sememe.models.transformer import TransformerConfig
from sememe.progress import Progress
from sememe.training.language import KIND as LANGUAGE_MODEL
from sememe.training.language import LanguageConfig, train_language_model

# Axis names: texts = stretches whose bytes are predicted, models = members of a family.

KIND = "family"
FEWEST = 4
"""Members that a curve of three numbers is fitted to, at least."""
PASSES = 4
"""Times that a member reads the text, at most: up to about four repeats are nearly as good as new
text (Muennighoff et al., 2305.16264)."""
READ_ONCE = 48
"""Width of a member that would read the text just once; wider ones read it again."""
BATCH = 32
"""Rows that losses are computed of at once."""


@dataclass(frozen=True)
class FamilyConfig:
    """Which models are trained."""

    widths: tuple[int, ...] = (8, 16, 24, 32, 40)
    """Width of each member, in multiples of 8; the more, the more compute."""
    layers: int = 2
    context: int = 256
    vocabulary: int = 2_048
    tokens_a_weight: float = 100.0
    """Tokens that a member is trained on for each of its weights. Large models do best with about
    20 (2203.15556); so small ones, which else take few steps, with more: docs/evaluation.md."""
    rows: int = 8
    """Stretches of text a step."""
    learning_rate: float = 1e-2
    """At width 32; it falls with the square root of the width."""
    seed: int = 0

    def __post_init__(self) -> None:
        if len(set(self.widths)) < FEWEST or any(width < 8 or width % 8 for width in self.widths):
            raise UsageError(
                f"widths are {self.widths}; expected {FEWEST} or more different multiples of 8"
            )
        if not self.tokens_a_weight > 0:
            raise UsageError(f"tokens_a_weight is {self.tokens_a_weight}; expected more than 0")

    def members(self) -> dict[int, LanguageConfig]:
        """Return how each member is trained, by width, the smallest first."""
        return {width: self.member(width) for width in sorted(set(self.widths))}

    def member(self, width: int) -> LanguageConfig:
        """Return how the member of some width is trained."""
        shape = TransformerConfig(
            width=width,
            layers=self.layers,
            hidden=4 * width,
            heads=width // 8,
            context=self.context,
            vocabulary=self.vocabulary,
        )
        return LanguageConfig(
            shape=shape,
            tokens=max(round(self.tokens_a_weight * shape.weights), self.rows * shape.context),
            rows=self.rows,
            learning_rate=self.learning_rate * (32 / width) ** 0.5,
            seed=self.seed,
        )


class Text(NamedTuple):
    """A stretch of text whose bytes are predicted, with what is known before it."""

    given: str
    asked: str


class Family:
    """A finished family: the compute of its members, and their losses on any text."""

    def __init__(self, path: Path) -> None:
        """Open the family in ``path``; SememeError where none is finished, or its list altered."""
        self.path = path
        self.manifest = read_manifest(path, KIND)
        verify_files(path, self.manifest)
        self.members: list[dict[str, Any]] = self.manifest["members"]
        self.compute = np.array([member["compute"] for member in self.members])

    def check_text(self, corpus: Corpus) -> None:
        """Raise SememeError unless it was trained on the sources of ``corpus``, less what is held.

        A document is held out by a hash of its text, so that what corpora of the same sources and
        share hold out is the same however large they are.
        """
        made_from = self.manifest["made_from"]
        wanted = text_of(corpus)
        for name, found in made_from.items():
            if found != wanted[name]:
                raise SememeError(f"the family in {self.path} was trained on other {name}")

    def losses(
        self, texts: Sequence[Text], progress: Progress | None = None
    ) -> Float[np.ndarray, "models texts"]:
        """Return the summed loss of each member on the asked part of each text, in nats.

        SememeError for a member whose files do not match their checksums.
        """
        found = np.zeros((len(self.members), len(texts)))
        for row, member in enumerate(self.members):
            folder = self.path / member["name"]
            verify_files(folder, read_manifest(folder, LANGUAGE_MODEL))
            model = load_model(str(folder), dtype="fp32")
            found[row] = text_losses(model, texts)
            if progress:
                progress.advance(sum(len(text.asked.encode()) for text in texts))
        return found


def text_of(corpus: Corpus) -> dict[str, Any]:
    """Return what decides which text a corpus is drawn from."""
    return {
        "sources": corpus.manifest["made_from"]["sources"],
        "held_out": corpus.manifest["config"]["held_out"],
    }


def family_folder(text: dict[str, Any]) -> Path:
    """Return where the family of some text is kept, by default (``text`` as :func:`text_of`)."""
    return cache_folder() / "families" / fingerprint(text)[:16]


def make_family(
    config: FamilyConfig | None = None,
    out: Path | None = None,
    *,
    sources: Sequence[str] | None = None,
    held_out: float = 0.05,
    progress: Progress | None = None,
) -> Family:
    """Train the family of some text into ``out``, by default a place in the cache folder.

    ``sources`` and ``held_out`` as of :func:`~sememe.corpora.build.build_corpus`. Members are made
    one after the other, the smallest first; killed and called again it goes on where it was, and
    called with other widths it adds to the family. Those that would have to read the text more than
    four times are left out.

    Raises UsageError for arguments that make no sense, SememeError where the text is too little for
    four members.
    """
    config, progress = config or FamilyConfig(), progress or Progress()
    inputs = {source.label: source.identity() for source in resolve(sources)}
    text = {"sources": inputs, "held_out": held_out}
    out = out or family_folder(text)
    members = config.members()
    settings = {name: value for name, value in asdict(config).items() if name != "widths"}
    begin(out, {**settings, **text})
    facts = {fact["width"]: fact for fact in Family(out).members} if is_finished(out) else {}
    if set(members) <= set(facts):
        return Family(out)
    tokenizer = train_tokenizer(
        out / "tokenizer",
        config.vocabulary,
        sources=sources,
        seed=config.seed,
        held_out=held_out,
        progress=progress,
    )
    corpus = build_corpus(
        out / "corpus",
        tokenizer,
        tokens=round(config.member(READ_ONCE).tokens / (1 - held_out)),
        sources=sources,
        seed=config.seed,
        held_out=held_out,
        progress=progress,
    )
    there = len(corpus) - int(corpus.manifest["held_out_tokens"])
    fitting = {w: member for w, member in members.items() if member.tokens <= PASSES * there}
    if len(fitting) < FEWEST:
        wanted = sorted(member.tokens for member in members.values())[FEWEST - 1] // PASSES
        raise SememeError(
            f"the text has {there:,} tokens to train on; a family of {FEWEST} models needs "
            f"{wanted:,}: give more text, or smaller widths"
        )
    for width, member in fitting.items():
        name = f"width-{width}"
        progress.say(f"width {width}: {member.compute:.2g} operations, {member.tokens:,} tokens")
        made = train_language_model(
            corpus, out / "tokenizer", member, out / name, progress=progress
        )
        shown = ("compute", "weights", "tokens", "held_out_loss", "bytes_a_token")
        facts[width] = {"name": name, "width": width, **{key: made[key] for key in shown}}
    if left := [width for width in members if width not in fitting]:
        progress.say(f"widths {left} are left out: {there:,} tokens are too few for them")
    listed = [facts[width] for width in sorted(facts)]
    write_manifest(
        out,
        KIND,
        config=settings,
        made_from=text,
        files=[f"{fact['name']}/manifest.json" for fact in listed],
        members=listed,
    )
    return Family(out)


@torch.no_grad()
def text_losses(model: LanguageModel, texts: Sequence[Text]) -> Float[np.ndarray, " texts"]:
    """Return -log p of the asked part of each text given what is before it, summed, in nats.

    What is longer than the model's context is read in stretches that overlap by half of it, and a
    token is predicted from all that the first stretch that reaches it holds.
    """
    context, half = model.context, model.context // 2
    lead = [] if model.tokenizer.bos is None else [model.tokenizer.bos]
    rows: list[tuple[int, list[int], int]] = []  # a text, a stretch, tokens known of it
    for number, text in enumerate(texts):
        before = [*lead, *model.tokenizer.encode(text.given)]
        ids = before + model.tokenizer.encode(text.asked)
        done = max(1, len(before))
        for start in range(0, max(1, len(ids) - half - 1), half):
            stop = min(start + context + 1, len(ids))
            if stop > done:
                rows.append((number, ids[start:stop], done - start))
                done = stop
    total = np.zeros(len(texts))
    rows.sort(key=lambda row: len(row[1]))  # so that little is padded
    for first in range(0, len(rows), BATCH):
        part = rows[first : first + BATCH]
        padded = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(ids) for _, ids, _ in part], batch_first=True
        )
        logits = model.logits(padded[:, :-1]).float()
        for (number, ids, known), row in zip(part, logits, strict=True):
            total[number] += float(
                torch.nn.functional.cross_entropy(
                    row[known - 1 : len(ids) - 1], torch.tensor(ids[known:]), reduction="sum"
                )
            )
    return total
