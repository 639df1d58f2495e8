"""Describe every feature of a dictionary in one pass over the activations.

The pass encodes each activation once and keeps where features fire (12 bytes a firing) beside the
atlas until it is written; everything after it reads firings, block of features by block, never
activations. Parts of the store may be read apart (:mod:`sememe.atlas.parts`).
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from sememe.activations.in_order import InOrder, LiveRows
from sememe.activations.rules import HarvestConfig, TokenRules
from sememe.artefacts import begin, is_finished, refuse_unfit
from sememe.atlas.layout import Layout, lay_out, place_beside
from sememe.atlas.pages import Pages, Sources, weights_of
from sememe.atlas.parts import covered, describe_part, merge_parts, missing
from sememe.atlas.ranked import Ranked
from sememe.atlas.statistics import INTERVALS, Text
from sememe.atlas.store import STATUSES, Atlas, OtherAtlas
from sememe.atlas.weights import logit_effects, neighbours, used_tokens
from sememe.atlas.writing import finish_atlas, write_pages
from sememe.corpora.corpus import Corpus
from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import SememeError
from sememe.evaluation.health import DENSE, ULTRALOW
from sememe.kernels.compiled import Array
from sememe.models.language_model import LanguageModel
from sememe.progress import Progress

PARTS = "parts"


def describe(
    model: LanguageModel,
    dictionary: Dictionary,
    activations: InOrder,
    corpus: Corpus,
    out: Path,
    *,
    beside: tuple[Atlas, Dictionary] | None = None,
    progress: Progress | None = None,
) -> Atlas:
    """Write the atlas of ``dictionary`` over the activations that it reads.

    Those are in a store, or the model reads them
    (:class:`~sememe.activations.in_order.LiveRows`): the figures are the same.
    What parts (:func:`sememe.atlas.parts.describe_part`) left in ``out``/parts is not read again.
    ``beside`` is another atlas with its dictionary, on whose map the features are placed; by
    default they have a map of their own.

    Raises SememeError when the inputs do not belong together.
    """
    progress = progress or Progress()
    site = dictionary.site
    dictionary.check_fits(model_hash=model.hash, site=site, width=activations.width(site))
    windows = activations.windows_of(corpus)
    made_from = {
        "model": model.hash,
        "model_name": model.name,
        "corpus": corpus.hash,
        "activations": activations.hash,
        "dictionary": dictionary.manifest["hash"],
    }
    if beside is not None:
        made_from["map"] = _check_map(*beside, dictionary)
    begin(out, made_from)
    if is_finished(out):
        return Atlas.open(out)
    folder = out / PARTS
    done = covered(folder, activations.shards)
    starts = activations.shard_starts
    before = sum(starts[part.stop] - starts[part.start] for part in done)
    progress.start("describe", starts[-1], "tokens", before)
    for shards in missing(done, activations.shards):
        describe_part(dictionary, activations, folder, shards, progress=progress)
    firings, sums = merge_parts(folder, activations.shards)
    text = Text.of(firings, corpus, windows)
    with torch.no_grad():
        decoder = torch.nn.functional.normalize(dictionary.W_dec.detach().float(), dim=1)
        used = used_tokens(model.tokenizer, np.unique(text.tokens))
        effects = logit_effects(model, decoder, site, used)
        near = neighbours(decoder)
        weights = weights_of(dictionary, decoder, effects, near)
    sources = Sources(text, corpus, windows, model.vocabulary)
    pages = Pages(firings, sums, weights, sources)
    vocabulary = model.tokenizer.bytes_of
    write_pages(out, pages, vocabulary)
    columns = pages.columns
    fires = firings.counts > 0
    alive = int(fires.sum())
    other = None
    if beside is None:
        layout = lay_out(decoder, near, columns["tokens"], fires, vocabulary)
    else:
        layout, nearby = _placed(decoder, fires, *beside)
        columns["other"] = nearby.which[:, 0].copy()
        columns["other_cosine"] = np.where(fires, nearby.amount[:, 0], np.float32(np.nan))
        other = _shown(beside[0], vocabulary)
    atlas = finish_atlas(
        out,
        {**columns, "x": layout.x, "y": layout.y, "cluster": layout.cluster},
        config={"intervals": INTERVALS, "dense": DENSE, "ultralow": ULTRALOW},
        made_from=made_from,
        features=firings.features,
        model=model.name,
        site=site,
        tokens=firings.rows,
        sources=corpus.sources,
        statuses={
            name: int((columns["status"] == number).sum()) for number, name in enumerate(STATUSES)
        },
        alive=alive,
        l0=float(firings.counts.sum() / firings.rows),
        clusters=layout.clusters,
        other=other,
    )
    shutil.rmtree(folder, ignore_errors=True)
    progress.finish(f"{alive:,} features fire")
    return atlas


def live_rows(model: LanguageModel, dictionary: Dictionary, corpus: Corpus) -> LiveRows:
    """Return the activations that ``dictionary`` reads, by its own token rules, without a store.

    Raises SememeError for another model, or a dictionary that does not say by which rules tokens
    were left out.
    """
    made = dictionary.manifest["made_from"]
    if not {"rules", "context"} <= set(made):
        raise SememeError(
            "the dictionary does not say what its model read: expected the context and the token "
            "rules, which those trained on a corpus here have; harvest a store for it"
        )
    dictionary.check_fits(model_hash=model.hash)
    config = HarvestConfig(context=made["context"])
    return LiveRows(model, corpus, (dictionary.site,), config, TokenRules(**made["rules"]))


def _check_map(other: Atlas, mapped: Dictionary, dictionary: Dictionary) -> str:
    """Return the hash of the atlas whose map is kept; SememeError if it does not fit."""
    refuse_unfit(
        str(other.path),
        {
            "dictionary": (other.manifest["made_from"]["dictionary"], mapped.manifest["hash"]),
            "site": (mapped.site, dictionary.site),
            "width": (mapped.config.width, dictionary.config.width),
        },
    )
    if "x" not in other.columns:
        raise SememeError(f"{other.path} has no map: describe it again with this sememe")
    return str(other.manifest["hash"])


def _placed(
    decoder: Float[torch.Tensor, "features width"], fires: Array, other: Atlas, mapped: Dictionary
) -> tuple[Layout, Ranked]:
    columns = other.columns
    layout = Layout(columns["x"], columns["y"], columns["cluster"], other.manifest["clusters"])
    return place_beside(
        decoder, fires, torch.nn.functional.normalize(mapped.directions().float(), dim=1), layout
    )


def _shown(other: Atlas, vocabulary: Sequence[bytes]) -> OtherAtlas:
    """Return what a map shows of the features of ``other``: no tokens of another vocabulary."""
    names = ("x", "y", "tokens") if other.vocabulary == [*vocabulary] else ("x", "y")
    return OtherAtlas(other.path.resolve().parent.name, {n: other.columns[n] for n in names})
