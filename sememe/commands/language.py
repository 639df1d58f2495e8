"""The commands of language models of one's own."""

from dataclasses import dataclass
from pathlib import Path

from sememe.commands.figures import show
from sememe.terminal import print_table, terminal_progress

TOKENS = 20_000_000
"""Of the corpus that train-lm makes by default."""


@dataclass(frozen=True, kw_only=True)
class TrainLm:
    """Train a small language model on text, with a tokenizer of its own. Goes on where it was.

    The directory is then a model like any other: `sememe map DIR/model` takes it apart.
    """

    out: Path
    """Directory of tokenizer, corpus and model, each in a directory of its own."""
    text: tuple[str, ...] = ()
    """Sources or paths of your own text; by default the default set."""
    corpus_tokens: int = TOKENS
    """Tokens of text, held-out ones included."""
    held_out: float = 0.05
    """Share of the documents that training never sees."""
    tokenizer: str | None = None
    """A model whose tokenizer to use; by default one is trained on the text."""
    vocabulary: int = 4_096
    """Ids of the tokenizer that is trained."""
    width: int = 128
    """Dimensions of the residual stream."""
    layers: int = 1
    """Layers: attention, then an MLP of ReLUs."""
    hidden: int = 512
    """Neurons of each MLP."""
    heads: int = 4
    """Attention heads of each layer."""
    context: int = 256
    """Tokens that the model reads at once."""
    tokens: int = TOKENS
    """Tokens to train on; beyond those of the text it is read again in another order."""
    rows: int = 8
    """Stretches of `--context` tokens a step."""
    learning_rate: float = 5e-3
    """Of Adam, at its highest."""
    seed: int = 0
    """Of the choice of text, the first weights and the order of the text."""
    json: bool = False
    """Print one JSON object."""

    def __call__(self) -> None:
        from sememe.corpora.build import build_corpus
        from sememe.corpora.vocabulary import save_tokenizer, train_tokenizer
        from sememe.models.load import load_model
        from sememe.models.transformer import TransformerConfig
        from sememe.training.language import LanguageConfig, train_language_model

        sources = [*self.text] or None
        folder = self.out / "tokenizer"
        with terminal_progress() as progress:
            if self.tokenizer is None:
                tokenizer = train_tokenizer(
                    folder,
                    self.vocabulary,
                    sources=sources,
                    seed=self.seed,
                    held_out=self.held_out,
                    progress=progress,
                )
            else:
                tokenizer = load_model(self.tokenizer, progress=progress).tokenizer
                save_tokenizer(tokenizer, folder)
            corpus = build_corpus(
                self.out / "corpus",
                tokenizer,
                tokens=self.corpus_tokens,
                sources=sources,
                seed=self.seed,
                held_out=self.held_out,
                progress=progress,
            )
            config = LanguageConfig(
                TransformerConfig(
                    self.width,
                    self.layers,
                    self.hidden,
                    self.heads,
                    self.context,
                    tokenizer.vocabulary,
                ),
                self.tokens,
                self.rows,
                self.learning_rate,
                self.seed,
            )
            made = train_language_model(
                corpus, folder, config, self.out / "model", progress=progress
            )
        nats = made["held_out_loss"]
        shown = ("weights", "tokens", "compute", "bytes_a_token")
        show(
            {
                **{name: made[name] for name in shown},
                "held_out_nats_a_token": nats,
                "held_out_nats_a_byte": nats / made["bytes_a_token"],
                "out": str(self.out / "model"),
            },
            self.json,
        )


@dataclass(frozen=True, kw_only=True)
class LmFamily:
    """Train the family of small language models that compute-equivalent loss is measured by.

    About a quarter of an hour on 2 cores, once for all models and dictionaries on the same text:
    `sememe evaluate` finds it. Goes on where it was.
    """

    text: tuple[str, ...] = ()
    """Sources or paths of your own text; by default the default set."""
    held_out: float = 0.05
    """Share of the documents that training never sees; that of the corpus to evaluate on."""
    widths: tuple[int, ...] = (8, 16, 24, 32, 40)
    """Width of each model, in multiples of 8; the more, the more compute. Asked for later, wider
    ones are added to those that are there."""
    out: Path | None = None
    """Directory of the family; by default a place in the cache folder, one for each text."""
    json: bool = False
    """Print one JSON object, whose members are the table."""

    def __call__(self) -> None:
        from sememe.evaluation.family import FamilyConfig, make_family

        with terminal_progress() as progress:
            family = make_family(
                FamilyConfig(widths=self.widths),
                self.out,
                sources=[*self.text] or None,
                held_out=self.held_out,
                progress=progress,
            )
        if self.json:
            show({"members": family.members, "out": str(family.path)}, as_json=True)
            return
        columns = ("name", "compute", "weights", "tokens", "held_out_loss", "bytes_a_token")
        print_table(columns, [[member[name] for name in columns] for member in family.members])
        show({"out": str(family.path)}, as_json=False)
