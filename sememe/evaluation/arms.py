"""Arms of an evaluation: the dictionary, its controls and its replicates, all measured alike."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sememe.activations.store import Activations, Rows
from sememe.corpora.corpus import Corpus
from sememe.dictionaries.dictionary import Dictionary
from sememe.evaluation.estimates import Resampling
from sememe.kernels import Code
from sememe.models.language_model import LanguageModel

CHUNK = 8192

Role = Literal["subject", "control", "replicate"]


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

    @property
    def site(self) -> str:
        """Where it reads and writes."""
        return self.dictionary.site

    @property
    def features(self) -> int:
        """Number of its features."""
        return self.dictionary.config.features

    def in_order(self) -> Iterator["CodedRows"]:
        """Yield the held-out activations with their codes, in corpus order."""
        begin = 0
        for rows in self.held_out.in_order(self.site, CHUNK):
            end = begin + len(rows.values)
            yield CodedRows(rows, Code(*(part[begin:end] for part in self.code)))
            begin = end

    @cached_property
    def code(self) -> Code:
        """The code of every held-out row, in corpus order; made once, kept in memory."""
        parts = []
        with torch.no_grad():
            for rows in self.held_out.in_order(self.site, CHUNK):
                parts.append(self.dictionary.encode(rows.values))
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
