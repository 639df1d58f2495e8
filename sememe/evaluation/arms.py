"""Arms of an evaluation: the dictionary, its controls and its replicates, all measured alike."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sememe.activations.store import Activations, Rows
from sememe.artefacts import refuse_unfit
from sememe.corpora.corpus import Corpus
from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import SememeError
from sememe.evaluation.estimates import Resampling
from sememe.kernels import Code
from sememe.models.language_model import LanguageModel

CHUNK = 8192

Role = Literal["subject", "control", "replicate"]
T = TypeVar("T")


@dataclass(frozen=True)
class Arm:
    """Something with features, and the activations and the model that they are features of.

    A control is a dictionary like any other: neurons, principal components and the identity are
    dictionaries whose rows are written down, the rest are trained.
    """

    name: str
    """One of a few words, shown in tables."""
    what: str
    """What it is and how it was made, in a sentence."""
    role: Role
    dictionary: Dictionary
    model: LanguageModel
    """The model whose activations it reads; for the random model's arm not the subject's."""
    held_out: Activations
    """Activations of that model on held-out documents."""
    corpus: Corpus
    key: str = ""
    """Says what it is made of: of two arms with the same key all figures are the same."""
    family: Path | None = None
    """Family of language models that its losses are compared with; None for that of its text."""
    shared: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What :meth:`once` has made; ``dataclasses.replace`` passes it on."""

    @classmethod
    def subject(
        cls, dictionary: Dictionary, model: LanguageModel, held_out: Activations, corpus: Corpus
    ) -> "Arm":
        """Return the arm of the dictionary that is evaluated.

        Raises UsageError for a dictionary of another model, site or width, and SememeError for
        activations of another corpus or of documents that it may have been trained on.
        """
        site = dictionary.site
        dictionary.check_fits(model_hash=model.hash, site=site, width=held_out.width(site))
        made_from = held_out.manifest["made_from"]
        refuse_unfit(str(held_out.path), {"corpus": (made_from["corpus"], corpus.hash)})
        trained_on = dictionary.manifest["made_from"].get("corpus", corpus.hash)
        refuse_unfit("the dictionary", {"corpus": (trained_on, corpus.hash)})
        if not held_out.manifest["config"]["held_out"]:
            raise SememeError(
                f"{held_out.path} holds training documents: evaluate on held-out ones"
            )
        return cls(
            "dictionary",
            f"The dictionary: {dictionary.config.features:,} {dictionary.config.nonlinearity.kind} "
            f"features of {site} of {model.name}.",
            "subject",
            dictionary,
            model,
            held_out,
            corpus,
            key=str(dictionary.manifest["hash"]),
        )

    @property
    def site(self) -> str:
        """Where it reads and writes."""
        return self.dictionary.site

    @property
    def features(self) -> int:
        """Number of its features."""
        return self.dictionary.config.features

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return what is the same for all arms that read the same rows, made by the first."""
        if name not in self.shared:
            self.shared[name] = make()
        found: T = self.shared[name]
        return found

    def in_order(self) -> Iterator["CodedRows"]:
        """Yield the held-out activations with their codes, in corpus order.

        Codes are encoded on the way, and not kept, unless :attr:`code` has been asked for.
        """
        code: Code | None = self.__dict__.get("code")
        begin = 0
        for rows in self.held_out.in_order(self.site, CHUNK):
            end = begin + len(rows.values)
            if code is None:
                with torch.no_grad():
                    part = self.dictionary.encode(rows.values)
            else:
                part = Code(code.indices[begin:end], code.values[begin:end])
            yield CodedRows(rows, part)
            begin = end

    def keep_code(self) -> None:
        """Encode all held-out rows now, so that no section has to again."""
        _ = self.code

    @cached_property
    def code(self) -> Code:
        """The code of every held-out row, in corpus order; made once, kept in memory."""
        parts = [coded.code for coded in self.in_order()]
        widest = max(part.values.shape[1] for part in parts)
        padded = [[torch.nn.functional.pad(x, (0, widest - x.shape[1])) for x in p] for p in parts]
        indices, values = (torch.cat(column) for column in zip(*padded, strict=True))
        return Code(indices, values)

    @cached_property
    def document(self) -> Int64[np.ndarray, " rows"]:
        """The place of each held-out row's document among the documents that have rows."""
        numbers = np.concatenate(
            [rows.document.numpy() for rows in self.held_out.in_order(self.site, 1 << 16)]
        )
        return np.unique(numbers, return_inverse=True)[1].astype(np.int64)

    @cached_property
    def documents(self) -> Resampling:
        """Draws of the held-out documents: the same for every arm that reads the same rows."""
        return Resampling(int(self.document.max()) + 1)


class CodedRows(NamedTuple):
    """Held-out activations and their code."""

    rows: Rows
    code: Code

    def rebuilt(self, dictionary: Dictionary) -> Float[Tensor, "rows width"]:
        """Return the reconstruction from the code (autoencoders have no skip)."""
        return dictionary.decode(self.code)
