"""Texts beside the corpus, read by the model at a site; what was read once is kept on disk.

Axis names: documents = texts, width = of an activation, rows = tokens of all documents in order.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save
from torch import Tensor

from sememe.artefacts import cache_folder, fingerprint, write_bytes
from sememe.models.language_model import LanguageModel
from sememe.models.reading import read

BATCH_TOKENS = 4096
"""Tokens in one forward pass, padding included."""


def kept(made_from: object, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return what ``make`` makes from inputs that ``made_from`` identifies, from disk if it can."""
    path = cache_folder() / "readings" / f"{fingerprint(made_from)}.safetensors"
    if path.exists():
        return load_file(path)
    made = make()
    write_bytes(path, save({name: value.contiguous() for name, value in made.items()}))
    return made


def last_activations(
    model: LanguageModel, site: str, documents: Sequence[Sequence[int]]
) -> Float[Tensor, "documents width"]:
    """Return the activation of the last token of every document, fp32."""
    found = torch.zeros(len(documents), model.width(site))
    for members, activation, valid in _read(model, site, documents):
        last = valid.shape[1] - 1 - valid.flip(1).int().argmax(1)
        found[members] = activation[torch.arange(len(last)), last]
    return found


def all_activations(
    model: LanguageModel, site: str, documents: Sequence[Sequence[int]]
) -> Float[Tensor, "rows width"]:
    """Return the activation of every token, documents one after the other, fp32."""
    begins = torch.tensor([0, *(len(ids) for ids in documents)]).cumsum(0)
    found = torch.zeros(int(begins[-1]), model.width(site))
    for members, activation, valid in _read(model, site, documents):
        rows = [torch.arange(int(begins[i]), int(begins[i + 1])) for i in members.tolist()]
        found[torch.cat(rows)] = activation[valid]
    return found


def _read(
    model: LanguageModel, site: str, documents: Sequence[Sequence[int]]
) -> Iterator[
    tuple[Int[Tensor, " batch"], Float[Tensor, "batch time width"], Bool[Tensor, "batch time"]]
]:
    """Yield documents of similar lengths together, longest first, BOS in front where wanted."""
    lead = [] if model.tokenizer.bos is None else [model.tokenizer.bos]
    order = sorted(range(len(documents)), key=lambda number: -len(documents[number]))
    first = 0
    while first < len(order):
        longest = len(documents[order[first]]) + len(lead)
        members = order[first : first + max(1, BATCH_TOKENS // longest)]
        lengths = torch.tensor([len(lead) + len(documents[number]) for number in members])
        rows = [torch.tensor([*lead, *documents[number]]) for number in members]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        place = torch.arange(longest)[None, :]
        valid = (place >= len(lead)) & (place < lengths[:, None])
        activation = read(model, ids, [site])[site].float().cpu()
        yield torch.tensor(members), activation, valid
        first += len(members)
