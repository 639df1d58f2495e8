"""A language model with its tokenizer, its sites, and the way from its stream to the logits."""

import copy
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from sememe.errors import SememeError
from sememe.models.hooks import by_token, capture
from sememe.models.sites import (
    Site,
    SiteInfo,
    find_module,
    head_count,
    layout_of,
    named_sites,
    resolve,
)
from sememe.models.tokenizer import Tokenizer

# Axis names: batch = documents or windows, time = tokens, width = the residual stream's,
# vocab = token ids, n = directions.


class LanguageModel:
    """A frozen decoder-only model: it is read and intervened on, never trained."""

    name: str
    """How the user named it."""
    module: PreTrainedModel
    """The transformers model, in eval mode and without gradients for its weights."""
    tokenizer: Tokenizer
    hash: str
    """The xxh3 of its weights and configuration."""
    dtype: str
    """``fp32`` or ``bf16``: what it computes in."""
    context: int
    """The most tokens that it can read at once."""
    vocabulary: int
    """How many logits it gives a token."""
    device: torch.device

    def __init__(
        self, name: str, module: PreTrainedModel, tokenizer: Tokenizer, *, hash: str
    ) -> None:
        self.name = name
        self.module = module.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.hash = hash
        self.dtype = "bf16" if module.dtype == torch.bfloat16 else "fp32"
        config = module.config.get_text_config()
        self.context = int(getattr(config, "max_position_embeddings", 0) or 2048)
        self.vocabulary = int(config.vocab_size)
        self.device = module.device
        self._sites: dict[str, Site] = {}
        self._widths: dict[str, int] = {}

    def exact(self) -> "LanguageModel":
        """Return the model in fp32: in bf16, rounding would be most of a small change."""
        if self.dtype == "fp32":
            return self
        module = copy.deepcopy(self.module).float()
        return LanguageModel(self.name, module, self.tokenizer, hash=self.hash)

    def site(self, name: str) -> Site:
        """Return the place that ``name`` stands for; UsageError if there is none."""
        if name not in self._sites:
            self._sites[name] = resolve(self.module, name, model_name=self.name)
        return self._sites[name]

    def width(self, site: str) -> int:
        """Return how many numbers an activation at ``site`` has.

        UsageError for a site that the model lacks, SememeError for one without a vector a token.
        """
        if site not in self._widths:
            self._widths |= _widths(self.module, self.vocabulary, [self.site(site)])
        if site not in self._widths:
            raise SememeError(
                f"site {site!r} of {self.name} does not give one vector a token, in the order of "
                "the tokens; choose another module"
            )
        return self._widths[site]

    def sites(self) -> list[SiteInfo]:
        """Return every site with its width, but for the parts of sites (:meth:`part_sites`).

        For an architecture without named sites these are the modules that give a vector for every
        token, and ``logits``.
        """
        found = named_sites(self.module)
        if layout_of(self.module) is None:
            modules = [path for path, _ in self.module.named_modules() if path]
            found = [Site(f"module:{path}", path) for path in modules] + found
        unknown = [site for site in found if site.name not in self._widths]
        if unknown:
            self._widths |= _widths(self.module, self.vocabulary, unknown)
        return [
            SiteInfo(site.name, self._widths[site.name])
            for site in found
            if site.name in self._widths
        ]

    def part_sites(self) -> list[tuple[str, str]]:
        """Return how the sites that are parts of others are written, and how wide they are."""
        sites = self.sites()
        found = []
        heads = [site for site in sites if site.name.endswith(".attn.heads")]
        if heads:
            counts = [head_count(self.module, self.site(site.name)) for site in heads]
            widths = {site.width // count for site, count in zip(heads, counts, strict=True)}
            last = {count - 1 for count in counts}
            numbers = [" or ".join(map(str, sorted(each))) for each in (widths, last)]
            found.append(("layers.N.attn.head.H", "{}, H from 0 to {}".format(*numbers)))
        if any(site.name == "logits" for site in sites):
            found += [("logits.random.D", "D"), ("logits.tokens.IDS", "as many as IDS")]
        return found

    def logits(
        self, ids: Int[Tensor, "batch time"], *, grad: bool = False
    ) -> Float[Tensor, "batch time vocab"]:
        """Return the logits of the next token at every place of right-padded rows.

        With ``grad``, gradients flow to whatever was put in by ``replaced``.
        """
        with torch.set_grad_enabled(grad):
            output = self.module(input_ids=ids.to(self.device), use_cache=False)
        logits: Tensor = output.logits
        return logits

    def direct_logits(self, directions: Float[Tensor, "n width"]) -> Float[Tensor, "n vocab"]:
        r"""Return what directions of the residual stream add to the logits by the direct path.

        $$(g \odot (d - \bar d)) \cdot W_U$$ with $W_U$ the unembedding, $g$ the final norm's
        weight, and the mean taken off where that norm takes it off (LayerNorm). The division by
        the size of the whole stream, which scales all logits of a token alike, is left out, and so
        are a bias and a soft cap or scale after the unembedding.
        """
        return self.direct_path()(directions)

    def direct_path(
        self, tokens: Int[Tensor, " vocab"] | None = None
    ) -> Callable[[Float[Tensor, "n width"]], Float[Tensor, "n vocab"]]:
        """Return :meth:`direct_logits` to some tokens or all, their weights made ready once."""
        head = self.module.get_output_embeddings()
        weight: Tensor = head.weight if tokens is None else head.weight[tokens.to(self.device)]
        scale, centred = _norm_scale(self._final_norm())
        scaled = (weight.float() * scale).T

        def logits(directions: Float[Tensor, "n width"]) -> Float[Tensor, "n vocab"]:
            directions = directions.to(self.device, torch.float32)
            if centred:
                directions = directions - directions.mean(-1, keepdim=True)
            return directions @ scaled

        return logits

    def direct_gradient(self, to_logits: Float[Tensor, "n vocab"]) -> Float[Tensor, "n width"]:
        """Return the gradient at the residual stream of one at the logits, by the direct path.

        The transpose of :meth:`direct_logits`, so without the division by the stream's size.
        """
        head = self.module.get_output_embeddings()
        scale, centred = _norm_scale(self._final_norm())
        gradient: Tensor = (to_logits.to(self.device, torch.float32) @ head.weight.float()) * scale
        return gradient - gradient.mean(-1, keepdim=True) if centred else gradient

    def final_scale(
        self, stream: Float[Tensor, "n width"], normed: Float[Tensor, "n width"]
    ) -> Float[Tensor, " n"]:
        """Return what the final norm multiplies each row by, apart from its weight and bias.

        ``stream`` is what it reads and ``normed`` what it returns.
        """
        norm = self._final_norm()
        scale, centred = _norm_scale(norm)
        bias = getattr(norm, "bias", None)
        rows = (stream - stream.mean(-1, keepdim=True) if centred else stream) * scale
        whole = normed if bias is None else normed - bias
        return (whole * rows).sum(-1) / rows.square().sum(-1)

    def writes_to_stream(self, site: str) -> bool:
        """Whether an activation at ``site`` is the residual stream, or is added to it unchanged.

        Blocks whose output passes another norm first (Gemma's) do not count.
        """
        kind = site.split(".", 2)[-1]
        if kind == "resid":
            return True
        normed = any("post_feedforward" in name for name, _ in self.module.named_modules())
        return kind in ("mlp.out", "attn.out") and not normed

    def _final_norm(self) -> nn.Module | None:
        layout = layout_of(self.module)
        return find_module(self.module, layout.norm) if layout else None


def _norm_scale(norm: nn.Module | None) -> tuple[Tensor | float, bool]:
    """Return the weight that a norm multiplies by, and whether it takes the mean off.

    Gemma's norms multiply by one plus their parameter; which of the two a norm does is seen from
    what it makes of a constant vector, so that a new architecture needs no entry here.
    """
    weight = getattr(norm, "weight", None)
    if norm is None or not isinstance(weight, Tensor):
        return 1.0, isinstance(norm, nn.LayerNorm)
    if isinstance(norm, nn.LayerNorm):
        return weight.float(), True
    with torch.no_grad():
        seen = norm(torch.full_like(weight, 64.0)).float()
    plain, offset = weight.float(), 1.0 + weight.float()
    return (plain if (seen - plain).norm() <= (seen - offset).norm() else offset), False


def _widths(module: PreTrainedModel, vocabulary: int, sites: list[Site]) -> dict[str, int]:
    """Return the widths of the ``sites`` that give a vector for every token, in their order.

    Reads 16 documents of two tokens, and where a module folds them into rows the same documents
    the other way round: its rows have to turn round with them, which those of experts do not that
    sort tokens by expert.
    """
    ids = (torch.arange(32, device=module.device) * max(1, vocabulary // 32) % vocabulary).view(
        -1, 2
    )

    def see(site: Site, tensor: Tensor | None) -> Tensor | None:
        whole = by_token(tensor, ids.shape)
        if whole is None or tensor is None:
            return None
        kept = whole if tensor.ndim == 2 else whole[:1, :1]
        return site.part.take(kept) if site.part else kept

    def look(ids: Tensor, sites: list[Site]) -> dict[str, Tensor]:
        return capture(module, sites, lambda: module(input_ids=ids, use_cache=False), see)

    there = look(ids, sites)
    folded = [site for site in sites if site.name in there and len(there[site.name]) > 1]
    turned = look(ids.flip(0), folded) if folded else {}
    widths = {}
    for site in sites:
        if site.name not in there:
            continue
        first, other = there[site.name], turned.get(site.name)
        if other is None or (first - other.flip(0)).norm() <= 0.1 * first.norm():
            widths[site.name] = first.shape[-1]
    return widths
