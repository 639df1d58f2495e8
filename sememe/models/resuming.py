"""Run a model from a layer on, where what the layers before it return is known.

A change at a site leaves every earlier layer as it was, so that a pass with the change need not run
them again.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from torch import nn

from sememe.models.language_model import LanguageModel
from sememe.models.sites import layers_of

Outputs = Mapping[int, object]
"""What layers returned, by how many layers have run then."""


def layers_before(model: LanguageModel, site: str) -> int:
    """Return how many layers have run before the one that ``site`` is in.

    0 for what is in no layer: embeddings, logits, architectures without named sites.
    """
    names = {module: name for name, module in model.module.named_modules()}
    path = f"{model.site(site).path}."
    layers = enumerate(layers_of(model.module))
    return next((n for n, layer in layers if path.startswith(f"{names[layer]}.")), 0)


@contextmanager
def recorded(model: LanguageModel, counts: Sequence[int]) -> Iterator[Outputs]:
    """Inside, a pass puts down what :func:`resumed` needs to skip so many layers, or so many."""
    found: dict[int, object] = {}
    layers = layers_of(model.module)

    def keep(count: int, _layer: nn.Module, _args: object, output: object) -> None:
        found[count] = output

    with ExitStack() as stack:
        for count in {count for count in counts if count}:
            handle = layers[count - 1].register_forward_hook(partial(keep, count))
            stack.callback(handle.remove)
        yield found


@contextmanager
def resumed(model: LanguageModel, known: Outputs, count: int) -> Iterator[None]:
    """Inside, the first ``count`` layers do not run, and their result is taken from ``known``.

    It was :func:`recorded` on the same ids. Of the sites in those layers only the output of the
    last can be read or replaced.
    """
    skipped = layers_of(model.module)[:count]
    for layer in skipped:
        layer.forward = lambda *_args, **_kwargs: known[count]
    try:
        yield
    finally:
        for layer in skipped:
            del layer.forward
