"""A model of random weights that keeps what can be kept of a trained one."""

from copy import deepcopy

import torch

from sememe.artefacts import fingerprint
from sememe.models.language_model import LanguageModel


@torch.no_grad()
def permuted(model: LanguageModel, *, seed: int = 0) -> LanguageModel:
    """Return the model with the entries of every weight tensor in random order.

    So each tensor keeps its sizes, but nothing that was learnt of which goes where. A copy: its
    memory is the model's once more.
    """
    module = deepcopy(model.module)
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return LanguageModel(
        f"{model.name} permuted",
        module,
        model.tokenizer,
        hash=fingerprint({"permuted": model.hash, "seed": seed}),
    )
