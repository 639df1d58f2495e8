"""What a feature's weights alone say: the tokens it promotes, and which features are near it."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from sememe.kernels.compiled import Array
from sememe.models.language_model import LanguageModel

LOGITS_SHOWN = 12
NEIGHBOURS_SHOWN = 10
CHUNK = 512
LOGIT_CHUNK = 64


class Ranked(NamedTuple):
    """For every feature a short list, strongest first."""

    which: Array
    """(features, shown) token ids or features."""
    amount: Array
    """(features, shown) effects or cosines."""


def logit_effects(
    model: LanguageModel, decoder: Float[torch.Tensor, "features width"], site: str
) -> tuple[Ranked, Ranked] | None:
    """Return the tokens that each unit decoder row promotes and suppresses by the direct path.

    Effects are shifted so that a feature's median effect is 0 (Towards Monosemanticity); special
    tokens are left out. None where the site's activations are not added to the residual stream as
    they are, so that there is no direct path.
    """
    if not writes_to_stream(model, site):
        return None
    special = torch.tensor(sorted(model.tokenizer.special), dtype=torch.long)
    shape = (len(decoder), min(LOGITS_SHOWN, model.tokenizer.vocabulary))
    # Lists of small results would lie between the large temporaries and keep their memory.
    promotes, suppresses = (
        Ranked(np.empty(shape, np.int64), np.empty(shape, np.float32)) for _ in range(2)
    )
    for start in range(0, len(decoder), LOGIT_CHUNK):
        rows = slice(start, start + LOGIT_CHUNK)
        effect = model.direct_logits(decoder[rows])[:, : model.tokenizer.vocabulary]
        effect -= effect.median(dim=1, keepdim=True).values
        effect[:, special[special < effect.shape[1]]] = 0.0
        for sign, found in ((1.0, promotes), (-1.0, suppresses)):
            top = (sign * effect).topk(shape[1], dim=1)
            found.which[rows] = top.indices
            found.amount[rows] = sign * top.values
    return promotes, suppresses


def writes_to_stream(model: LanguageModel, site: str) -> bool:
    """Whether an activation at ``site`` is the residual stream, or is added to it unchanged.

    Blocks whose output passes another norm first (Gemma's) do not count.
    """
    kind = site.split(".", 2)[-1]
    if kind == "resid":
        return True
    normed = any("post_feedforward" in name for name, _ in model.module.named_modules())
    return kind in ("mlp.out", "attn.out") and not normed


def neighbours(decoder: Float[torch.Tensor, "features width"]) -> Ranked:
    """Return each feature's nearest others by cosine of unit decoder rows, exactly."""
    shown = min(NEIGHBOURS_SHOWN, len(decoder) - 1)
    found = []
    for start in range(0, len(decoder), CHUNK):
        cosine = decoder[start : start + CHUNK] @ decoder.T
        own = torch.arange(len(cosine))
        cosine[own, own + start] = -torch.inf
        top = cosine.topk(shown, dim=1)
        found.append(Ranked(top.indices.numpy(), top.values.numpy()))
    return Ranked(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
