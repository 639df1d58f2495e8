"""Controls: dictionaries that know nothing of features, held to the same measures.

Those here need no training: their rows are written down. All of them read and write the site of the
subject's dictionary in its units, centred on the mean activation, with the same number of active
features, but for the identity, which has as many as dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from sememe.artefacts import fingerprint
from sememe.dictionaries.config import DictionaryConfig
from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.nonlinearities import Nonlinearity, ReLU, TopK
from sememe.evaluation.arms import Arm
from sememe.training.streams import ActivationStream
from sememe.training.trainer import SAMPLE_ROWS

VERSION = 1
"""Of the dictionaries made here."""


@dataclass(frozen=True)
class Written:
    """A control that is written down: its rows are a function of a sample of activations."""

    name: str
    what: str
    rows: Callable[[Float[Tensor, "sample width"], int], Float[Tensor, "features width"]]
    """Decoder rows of norm 1, from centred activations and the subject's number of features."""
    sparse: bool = True
    """Whether only the k largest features are active."""
    scaled: bool = False
    """Whether the encoder is scaled so that the reconstruction is nearest: rows overlap."""


def _both_signs(rows: Float[Tensor, "n width"]) -> Float[Tensor, "features width"]:
    return torch.cat([rows, -rows])


def _dimensions(
    sample: Float[Tensor, "sample width"], _features: int
) -> Float[Tensor, "features width"]:
    return _both_signs(torch.eye(sample.shape[1]))


def _components(
    sample: Float[Tensor, "sample width"], _features: int
) -> Float[Tensor, "features width"]:
    _, vectors = torch.linalg.eigh(sample.double().T @ sample.double())
    return _both_signs(vectors.T.flip(0).float().contiguous())


def _random(
    sample: Float[Tensor, "sample width"], features: int
) -> Float[Tensor, "features width"]:
    generator = torch.Generator().manual_seed(0)
    return normalize(torch.randn(features, sample.shape[1], generator=generator), dim=1)


WRITTEN = (
    Written(
        "identity",
        "Every dimension of the site, plus and minus, all that are active: rebuilds exactly, and "
        "is not sparse. A ceiling for fidelity.",
        _dimensions,
        sparse=False,
    ),
    Written(
        "pca",
        "The principal components of the site's training activations, plus and minus, the {k} "
        "largest active.",
        _components,
    ),
    Written(
        "neurons",
        "The site's own dimensions, plus and minus, the {k} largest deviations from the mean "
        "active.",
        _dimensions,
    ),
    Written(
        "random directions",
        "As many random directions as the dictionary has features, the {k} largest projections "
        "active, scaled by one factor so that the reconstruction is nearest.",
        _random,
        scaled=True,
    ),
)


def active_features(subject: Arm) -> int:
    """Return the mean number of active features of the subject, rounded, 1 at least."""
    return max(1, round(float((subject.code.values > 0).sum(1).double().mean())))


@torch.no_grad()
def write_down(control: Written, subject: Arm, stream: ActivationStream) -> Arm:
    """Return the arm of a control, from a sample of the activations that ``stream`` yields."""
    k = active_features(subject)
    (scale,) = stream.scales
    sample = subject.once("control sample", lambda: stream.sample(SAMPLE_ROWS)) * scale
    mean = sample.mean(0)
    rows = control.rows(sample - mean, subject.features)
    k = min(k, len(rows))
    nonlinearity: Nonlinearity = TopK(k) if control.sparse else ReLU()
    width = (sample.shape[1],)
    dictionary = Dictionary(
        DictionaryConfig(
            (subject.site,), (subject.site,), width, width, len(rows), nonlinearity, "tied"
        ),
        [scale],
        [scale],
    )
    dictionary.W_enc.copy_(rows)
    dictionary.W_dec.copy_(rows)
    dictionary.b_dec.copy_(mean)
    if control.scaled:
        rebuilt = dictionary(sample / scale) * scale - mean
        dictionary.W_enc.mul_(((sample - mean) * rebuilt).sum() / rebuilt.square().sum())
    made_from = {
        "control": control.name,
        "version": VERSION,
        "k": k,
        "features": len(rows),
        "stream": getattr(stream, "made_from", None),
    }
    return replace(
        subject,
        name=control.name,
        what=control.what.format(k=k),
        role="control",
        dictionary=dictionary,
        key=fingerprint(made_from),
    )
