"""Sites: names of places in a model, and the modules they stand for.

``layers.N.resid`` is the output of layer N: the residual stream after it. ``layers.N.attn.in`` and
``layers.N.mlp.in`` are what its attention and MLP blocks read, after any norm before them;
``layers.N.attn.out`` and ``layers.N.mlp.out`` are the outputs of those blocks, before any norm that
follows them. ``layers.N.attn.heads`` is what the attention's last projection reads, head beside
head, and ``layers.N.attn.head.H`` the share of head H. ``layers.N.mlp.hidden`` is what the MLP's
last projection reads; in a gated MLP this is the product of gate and value. ``logits`` is the
output of the unembedding; ``logits.tokens.IDS`` are those of some tokens, and ``logits.random.D``
is their product with a random matrix. ``module:PATH`` is the output of any module, and
``module:PATH:in`` its first input.
"""

import difflib
import re
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import nn
from transformers import PreTrainedModel

from sememe.errors import UsageError
from sememe.models.parts import Chosen, Head, Part, RandomProjection

_LAYER_SITE = re.compile(r"layers\.(\d+)\.(.+)")
_HEAD = re.compile(r"attn\.head\.(\d{1,9})")
_EXPERT = re.compile(r"(?:mlp\.)?experts?\.\d+")
_RANDOM = re.compile(r"logits\.random\.(\d{1,9})")
_RUN_OF_IDS = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


@dataclass(frozen=True)
class Site:
    """A place in a model: one side of one module, or a part of it."""

    name: str
    """How users write it, such as ``layers.14.resid``."""
    path: str
    """The module's path inside the model."""
    side: str = "out"
    """``out`` for what the module returns (its first element), ``in`` for its first input."""
    part: Part | None = None
    """What is kept of the vector that the module has for a token; None keeps all of it."""


class SiteInfo(NamedTuple):
    """A site and how many numbers an activation at it has."""

    name: str
    width: int


class Layout(NamedTuple):
    """Where a family of architectures keeps its parts."""

    layers: str
    """Path of the list of layers."""
    attention: str
    """Path of the attention block inside a layer."""
    heads: str
    """Path of the attention's last projection inside a layer, which reads the heads."""
    mlp: str
    """Path of the MLP block inside a layer."""
    down: str
    """Path of the MLP's last projection inside a layer."""
    norm: str
    """Path of the norm before the unembedding."""


LAYOUTS = {
    "Llama, Gemma, Qwen, Mistral": Layout(
        "model.layers", "self_attn", "self_attn.o_proj", "mlp", "mlp.down_proj", "model.norm"
    ),
    "the text part of a model with images": Layout(
        "model.language_model.layers",
        "self_attn",
        "self_attn.o_proj",
        "mlp",
        "mlp.down_proj",
        "model.language_model.norm",
    ),
    "GPT-2": Layout(
        "transformer.h", "attn", "attn.c_proj", "mlp", "mlp.c_proj", "transformer.ln_f"
    ),
    "GPT-NeoX": Layout(
        "gpt_neox.layers",
        "attention",
        "attention.dense",
        "mlp",
        "mlp.dense_4h_to_h",
        "gpt_neox.final_layer_norm",
    ),
}
"""Each architecture family that has named sites; the first that fits a model's modules is used."""


def find_module(model: nn.Module, path: str) -> nn.Module | None:
    """Return the module at ``path``, or None."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def layout_of(model: PreTrainedModel) -> Layout | None:
    """Return the layout that fits ``model``; None for an architecture that has no named sites.

    A layout fits when its layers and final norm exist, and some layer has its attention block and
    its MLP; the MLP's last projection may be missing (experts have no single hidden layer).
    """
    for layout in LAYOUTS.values():
        layers = find_module(model, layout.layers)
        if (
            isinstance(layers, nn.ModuleList)
            and len(layers)
            and find_module(model, layout.norm) is not None
            and any(
                find_module(layer, layout.attention) is not None
                and find_module(layer, layout.mlp) is not None
                for layer in layers
            )
        ):
            return layout
    return None


def layer_count(model: PreTrainedModel) -> int:
    """Return how many layers have named sites; 0 for an architecture without them."""
    return len(layers_of(model))


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """Return the layers that have named sites; none for an architecture without them."""
    layout = layout_of(model)
    if layout is None:
        return []
    layers = model.get_submodule(layout.layers)
    assert isinstance(layers, nn.ModuleList)
    return list(layers)


def _parts(layout: Layout) -> dict[str, tuple[str, str]]:
    """Return the path inside a layer and the side of each kind of site."""
    return {
        "resid": ("", "out"),
        "attn.in": (layout.attention, "in"),
        "attn.heads": (layout.heads, "in"),
        "attn.out": (layout.attention, "out"),
        "mlp.in": (layout.mlp, "in"),
        "mlp.hidden": (layout.down, "in"),
        "mlp.out": (layout.mlp, "out"),
    }


def head_count(model: PreTrainedModel, heads: Site) -> int:
    """Return how many attention heads stand side by side at a site ``layers.N.attn.heads``."""
    attention = model.get_submodule(heads.path.rpartition(".")[0])
    # Few families have layers of different numbers of heads; their attention says how many.
    return int(
        getattr(attention, "num_heads", 0) or model.config.get_text_config().num_attention_heads
    )


def resolve(model: PreTrainedModel, name: str, *, model_name: str = "the model") -> Site:
    """Return the site called ``name``.

    Raises UsageError when there is no such site, saying what there is.
    """
    if name.startswith("module:"):
        return module_site(model, name, model_name)
    if name.split(".")[0] == "logits":
        return _logits_site(model, name, model_name)
    layout = layout_of(model)
    if layout is None:
        raise UsageError(
            f"site {name!r}: {model_name} ({model.config.model_type}) is of an architecture "
            "without named sites; write module:PATH, with a path of " + _examples(_paths(model))
        )
    layers = layers_of(model)
    parts = _parts(layout)
    match = _LAYER_SITE.fullmatch(name)
    head = _HEAD.fullmatch(match[2]) if match else None
    if match and _EXPERT.fullmatch(match[2]):
        block = f"{layout.layers}.{int(match[1])}.{layout.mlp}"
        _refuse_expert(model, name, f"{block}.experts.0", model_name)
    if match is None or (head is None and match[2] not in parts):
        known = [site.name for site in named_sites(model)]
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        raise UsageError(
            f"unknown site {name!r}: "
            + (f"did you mean {' or '.join(close)}? " if close else "")
            + f"{model_name} has layers.N.{{{','.join(parts)},attn.head.H}} with N from 0 to "
            f"{len(layers) - 1}, logits, logits.random.D, logits.tokens.IDS, and module:PATH for "
            "any module"
        )
    index = int(match[1])
    if index >= len(layers):
        raise UsageError(
            f"site {name!r}: {model_name} has {len(layers)} layers, numbered 0 to {len(layers) - 1}"
        )
    inside, side = parts["attn.heads" if head else match[2]]
    if inside and find_module(layers[index], inside) is None:
        children = ", ".join(child for child, _ in layers[index].named_children())
        raise UsageError(
            f"site {name!r}: layer {index} of {model_name} ({model.config.model_type}) has no "
            f"{inside}, so it lacks this site; its parts are {children}. Write "
            f"module:{layout.layers}.{index}.PART for one of them"
        )
    path = f"{layout.layers}.{index}" + (f".{inside}" if inside else "")
    site = Site(name, path, side)
    if head is None:
        return site
    count = head_count(model, site)
    if int(head[1]) >= count:
        raise UsageError(
            f"site {name!r}: layer {index} of {model_name} has {count} attention heads, numbered "
            f"0 to {count - 1}"
        )
    return replace(site, part=Head(int(head[1]), count))


def _logits_site(model: PreTrainedModel, name: str, model_name: str) -> Site:
    unembedding = model.get_output_embeddings()
    path = next((path for path, module in model.named_modules() if module is unembedding), None)
    if path is None:
        raise UsageError(f"site {name!r}: {model_name} has no unembedding")
    if name == "logits":
        return Site(name, path)
    vocabulary = len(unembedding.weight)
    random = _RANDOM.fullmatch(name)
    if random and 1 <= int(random[1]) <= vocabulary:
        return Site(name, path, part=RandomProjection(int(random[1])))
    if ids := _ids(name.removeprefix("logits.tokens."), vocabulary):
        return Site(name, path, part=Chosen(ids))
    raise UsageError(
        f"site {name!r}: expected logits, logits.random.D with D from 1 to {vocabulary}, or "
        "logits.tokens.IDS with ids and runs of ids in rising order, such as 5,17,300-399, each "
        f"below {vocabulary}"
    )


def _ids(text: str, vocabulary: int) -> tuple[int, ...]:
    """Return the token ids that ``text`` lists; nothing if it is not a list of rising ids."""
    ids: list[int] = []
    for item in text.split(","):
        run = _RUN_OF_IDS.fullmatch(item)
        first, last = (int(run[1]), int(run[2] or run[1])) if run else (0, -1)
        if not (ids[-1] if ids else -1) < first <= last < vocabulary:
            return ()
        ids.extend(range(first, last + 1))
    return tuple(ids)


def module_site(model: nn.Module, name: str, model_name: str) -> Site:
    """Return the site ``module:PATH`` or ``module:PATH:in``; UsageError for an unknown path."""
    path, side = name.removeprefix("module:"), "out"
    if path.endswith(":in"):
        path, side = path.removesuffix(":in"), "in"
    if not path or find_module(model, path) is None:
        _refuse_expert(model, name, path, model_name)
        known = _paths(model)
        close = difflib.get_close_matches(path, known, n=3, cutoff=0.6)
        raise UsageError(
            f"site {name!r}: {model_name} has no module {path!r}; "
            + (f"did you mean {' or '.join(close)}?" if close else f"it has {_examples(known)}")
        )
    return Site(name, path, side)


def _refuse_expert(model: nn.Module, name: str, path: str, model_name: str) -> None:
    """Raise UsageError if ``path`` is of one expert among those that a single module computes."""
    match = re.fullmatch(r"(.*experts)\.\d+(\..*)?", path)
    experts = find_module(model, match[1]) if match else None
    if match and experts is not None and not isinstance(experts, nn.ModuleList):
        raise UsageError(
            f"site {name!r}: {model_name} computes all experts of a layer in one module, so that "
            "the output of one alone is not to be read, and would have rows for the tokens routed "
            f"to it only; module:{match[1]} is what they add up to for each token"
        )


def _paths(model: nn.Module) -> list[str]:
    return [path for path, _ in model.named_modules() if path]


def _examples(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")


def named_sites(model: PreTrainedModel) -> list[Site]:
    """Return the sites that have names of their own, layer by layer, then ``logits``."""
    layout = layout_of(model)
    found: list[Site] = []
    if layout is not None:
        for index, layer in enumerate(layers_of(model)):
            for kind, (inside, side) in _parts(layout).items():
                if inside and find_module(layer, inside) is None:
                    continue
                path = f"{layout.layers}.{index}" + (f".{inside}" if inside else "")
                found.append(Site(f"layers.{index}.{kind}", path, side))
    if model.get_output_embeddings() is not None:
        found.append(resolve(model, "logits"))
    return found
