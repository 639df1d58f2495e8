"""Training the built-in language model on a corpus: files, checkpoints, validation loss."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from transformers import GPTNeoXForCausalLM

from sememe.artefacts import (
    is_finished,
    lock,
    read_manifest,
    refuse_other,
    verify_files,
    write_bytes,
    write_manifest,
)
from sememe.corpora.corpus import Corpus
from sememe.corpora.vocabulary import FILES as TOKENIZER_FILES
from sememe.errors import SememeError, UsageError
from sememe.models.tokenizer import Tokenizer
from sememe.models.transformer import TransformerConfig, save_transformer
from sememe.progress import Progress
from sememe.training.checkpoints import load_checkpoint, remove_checkpoints, save_checkpoint
from sememe.training.history import History
from sememe.training.schedules import fall, rise

# Axis names: rows = stretches of text that the model reads at once, time = tokens of one.

KIND = "language model"
WARM_UP = 0.05
"""Share of the steps over which the learning rate rises; over the rest it falls evenly to 0."""
BETAS = (0.9, 0.95)
CLIP = 1.0
"""Norm that a step's gradients are scaled down to."""
VALIDATIONS = 20
"""Points of the validation curve, about."""
VALIDATION_ROWS = 128
"""Stretches of held-out text that its points are of, at most."""


@dataclass(frozen=True)
class LanguageConfig:
    """How a built-in language model is made."""

    shape: TransformerConfig = field(default_factory=TransformerConfig)
    tokens: int = 10_000_000
    """Tokens to train on; beyond those of the corpus it is read again in another order."""
    rows: int = 8
    """Stretches of ``shape.context`` tokens a step."""
    learning_rate: float = 5e-3
    """Of Adam, at its highest."""
    seed: int = 0
    """Of the first weights and the order of the text."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        for name in ("tokens", "rows", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.steps < 1:
            raise UsageError(
                f"tokens is {self.tokens}; a step alone takes {self.rows * self.shape.context}"
            )
        if not self.learning_rate > 0:
            raise UsageError(f"learning_rate is {self.learning_rate}; expected a number above 0")

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.tokens // (self.rows * self.shape.context)

    @property
    def compute(self) -> float:
        """Floating-point operations of the whole run (:attr:`TransformerConfig.flops`)."""
        return float(self.steps * self.rows * self.shape.context * self.shape.flops)


def train_language_model(
    corpus: Corpus,
    tokenizer: Path,
    config: LanguageConfig,
    out: Path,
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a built-in model on the training documents of ``corpus``; return its manifest.

    ``tokenizer`` is the directory of the corpus's tokenizer. ``out`` is afterwards a model like any
    other, for :func:`~sememe.models.load.load_model` and `sememe map`. Killed and called again with
    the same arguments it goes on from its last checkpoint and ends with the same bytes on the same
    number of threads; once finished it returns what is there. ``history.jsonl`` has its losses.

    Raises UsageError for a vocabulary smaller than the tokenizer's, SememeError for too little
    text, a corpus of another tokenizer, and training that diverges.
    """
    progress, out = progress or Progress(), Path(out)
    opened = Tokenizer.open(tokenizer)
    if (made := corpus.manifest["made_from"]["tokenizer"]) != opened.hash:
        raise SememeError(f"{corpus.path} was made with tokenizer {made}, not that of {tokenizer}")
    if config.shape.vocabulary < opened.vocabulary:
        raise UsageError(
            f"vocabulary is {config.shape.vocabulary}; the tokenizer has {opened.vocabulary} ids"
        )
    settings = {name: v for name, v in asdict(config).items() if name != "checkpoint_every"}
    made_from = {"corpus": corpus.hash, "tokenizer": opened.hash}
    run_key = {**settings, **made_from}
    if is_finished(out):
        found = read_manifest(out, KIND)
        refuse_other(out, run_key, {**found["config"], **found["made_from"]})
        verify_files(out, found)
        return found
    lock(out)
    text = {held: _Text(corpus, opened, config.shape.context, held=held) for held in (False, True)}
    trainer = _Trainer(config, text[False])
    if saved := load_checkpoint(out, run_key):
        trainer.restore(*saved)
    history = History(out, config.steps, trainer.step)
    every = history.every * math.ceil(config.steps / VALIDATIONS / history.every)
    read = config.rows * config.shape.context
    progress.start("train-lm", config.steps * read, "tokens", trainer.step * read)
    while trainer.step < config.steps:
        loss = trainer.advance()
        figures = {"loss": loss}
        if trainer.step % every == 0 or trainer.step == config.steps:
            figures["held_out_loss"] = trainer.held_out_loss(text[True])
        if not all(map(math.isfinite, figures.values())):
            raise SememeError(
                f"training diverged at step {trainer.step} (loss {loss}): lower learning_rate "
                f"(now {config.learning_rate:g}) and give another --out"
            )
        history.add(trainer.step, trainer.step * read, figures)
        progress.advance(read, **figures)
        if trainer.step % config.checkpoint_every == 0 and trainer.step < config.steps:
            history.keep()
            save_checkpoint(out, trainer.step, trainer.tensors(), {"run": run_key})
    for name in TOKENIZER_FILES:
        write_bytes(out / name, (tokenizer / name).read_bytes())
    files = save_transformer(trainer.module, out)
    manifest = write_manifest(
        out,
        KIND,
        config=settings,
        made_from=made_from,
        files=[*files, *TOKENIZER_FILES],
        held_out_loss=figures["held_out_loss"],
        held_out_tokens=text[True].predicted,
        bytes_a_token=text[True].bytes_a_token,
        weights=config.shape.weights,
        tokens=config.steps * read,
        compute=config.compute,
    )
    remove_checkpoints(out)
    progress.finish(f"held-out loss {figures['held_out_loss']:.3f} nats a token")
    return manifest


class _Text:
    """The training documents of a corpus, or the held-out ones, cut in rows of equal length."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, context: int, *, held: bool) -> None:
        """Read the documents, each after BOS where the tokenizer has one."""
        bos = [] if tokenizer.bos is None else [np.array([tokenizer.bos], dtype=np.uint32)]
        pieces = []
        for document in np.flatnonzero((corpus.held_out != 0) == held):
            start = int(corpus.start[document])
            pieces += [*bos, corpus.tokens(start, start + int(corpus.length[document]))]
        self.ids = np.concatenate(pieces) if pieces else np.zeros(0, np.uint32)
        self.context = context
        self.rows = (len(self.ids) - 1) // context
        if self.rows < 1:
            raise SememeError(
                f"{corpus.path} has {len(self.ids)} {'held-out' if held else 'training'} tokens, "
                f"but {context + 1} are needed: use more text"
            )
        self.predicted = min(self.rows, VALIDATION_ROWS) * context
        some = self.ids[1 : self.predicted + 1]
        self.bytes_a_token = sum(len(tokenizer.bytes_of[index]) for index in some) / len(some)

    def take(self, rows: Int64[np.ndarray, " rows"]) -> Int[Tensor, "rows time"]:
        """Return the tokens of some rows, each with the one that follows it."""
        places = rows[:, None] * self.context + np.arange(self.context + 1)
        return torch.from_numpy(self.ids[places].astype(np.int64))


class _Trainer:
    """Everything that decides the next step; what is drawn depends on the step's number alone."""

    def __init__(self, config: LanguageConfig, text: _Text) -> None:
        self.config, self.text = config, text
        self.module: GPTNeoXForCausalLM = config.shape.make(config.seed)
        self.named = dict(self.module.named_parameters())
        self.optimiser = torch.optim.Adam(self.named.values(), betas=BETAS)
        self.step = 0

    def advance(self) -> float:
        """Take one step, and return the mean loss of its tokens in nats before it."""
        config, step = self.config, self.step
        rate = rise(step, config.steps, WARM_UP) * fall(step, config.steps, 1 - WARM_UP)
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * rate
        loss = self._loss(self.text.take(self._rows()))
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.named.values(), CLIP)
        self.optimiser.step()
        self.step += 1
        return float(loss.detach())

    @torch.no_grad()
    def held_out_loss(self, text: _Text) -> float:
        """Return the mean loss of held-out tokens, in nats."""
        numbers = np.arange(min(text.rows, VALIDATION_ROWS))
        parts = np.split(numbers, range(self.config.rows, len(numbers), self.config.rows))
        total = sum(len(part) * float(self._loss(text.take(part))) for part in parts)
        return total / len(numbers)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint."""
        found = {f"weights.{name}": value.detach() for name, value in self.named.items()}
        for name, value in self.named.items():
            for key in ("exp_avg", "exp_avg_sq"):
                found[f"{key}.{name}"] = self.optimiser.state[value][key]
        return found

    def restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.step = state["step"]
        for name, value in self.named.items():
            value.data.copy_(tensors[f"weights.{name}"])
            self.optimiser.state[value] = {
                "step": torch.tensor(float(self.step)),
                "exp_avg": tensors[f"exp_avg.{name}"].clone(),
                "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].clone(),
            }

    def _rows(self) -> Int64[np.ndarray, " rows"]:
        """Return the rows of this step: the text in an order of its own each time it is read."""
        first = self.step * self.config.rows
        passes, places = np.divmod(np.arange(first, first + self.config.rows), self.text.rows)
        orders = {
            number: np.random.default_rng([self.config.seed, number]).permutation(self.text.rows)
            for number in np.unique(passes).tolist()
        }
        chosen = [
            orders[number][place] for number, place in zip(passes.tolist(), places, strict=True)
        ]
        return np.array(chosen, dtype=np.int64)

    def _loss(self, ids: Int[Tensor, "rows time"]) -> Float[Tensor, ""]:
        logits = self.module(input_ids=ids[:, :-1], use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
