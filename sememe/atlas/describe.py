"""Describe every feature of a dictionary in one pass over the activations.

The pass encodes each activation once and keeps where features fire (12 bytes a firing) beside the
atlas until it is written; everything after it reads firings, block of features by block, never
activations. Parts of the store may be read apart (:mod:`sememe.atlas.parts`).
"""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from sememe.activations.in_order import InOrder, LiveRows
from sememe.activations.rules import HarvestConfig, TokenRules
from sememe.artefacts import begin, is_finished, refuse_unfit
from sememe.atlas.layout import Layout, lay_out, named, place_beside
from sememe.atlas.pages import Pages, Sources, weights_of
from sememe.atlas.parts import covered, describe_part, merge_parts, missing
from sememe.atlas.ranked import Ranked
from sememe.atlas.statistics import INTERVALS, Text
from sememe.atlas.store import STATUSES, Atlas, OtherAtlas
from sememe.atlas.weights import logit_effects, neighbours, used_tokens
from sememe.atlas.writing import finish_atlas, write_pages
from sememe.corpora.corpus import Corpus, Windows
from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import SememeError
from sememe.evaluation.metrics import DENSE, ULTRALOW
from sememe.kernels.compiled import Array
from sememe.models.language_model import LanguageModel
from sememe.progress import Progress

PARTS = "parts"


class _Written(NamedTuple):
    """What is needed of the pages once they are written."""

    columns: dict[str, Array]
    counts: Array
    """(features,) rows on which each fires."""
    rows: int
    layout: Layout


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
    written = _write_pages(model, dictionary, activations.shards, corpus, windows, out, beside)
    columns, layout = written.columns, written.layout
    alive, other = int((written.counts > 0).sum()), None
    if beside is None:
        layout = named(layout, columns["tokens"], model.tokenizer.bytes_of)
    else:
        other = _shown(beside[0], model.tokenizer.bytes_of)
    atlas = finish_atlas(
        out,
        {**columns, "x": layout.x, "y": layout.y, "cluster": layout.cluster},
        config={"intervals": INTERVALS, "dense": DENSE, "ultralow": ULTRALOW},
        made_from=made_from,
        features=dictionary.config.features,
        model=model.name,
        site=site,
        tokens=written.rows,
        sources=corpus.sources,
        statuses={
            name: int((columns["status"] == number).sum()) for number, name in enumerate(STATUSES)
        },
        alive=alive,
        l0=float(written.counts.sum() / written.rows),
        clusters=layout.clusters,
        other=other,
    )
    shutil.rmtree(folder, ignore_errors=True)
    progress.finish(f"{alive:,} features fire")
    return atlas


def _write_pages(
    model: LanguageModel,
    dictionary: Dictionary,
    shards: int,
    corpus: Corpus,
    windows: Windows,
    out: Path,
    beside: tuple[Atlas, Dictionary] | None,
) -> _Written:
    """Write the pages of an atlas from the parts in ``out``, and lay its features out meanwhile."""
    firings, sums = merge_parts(out / PARTS, shards)
    text = Text.of(firings, corpus, windows)
    decoder, fires = _unit_rows(dictionary), firings.counts > 0
    used = used_tokens(model.tokenizer, np.unique(text.tokens))
    with torch.no_grad():
        effects = logit_effects(model, decoder, dictionary.site, used)
    near = neighbours(decoder)
    with ThreadPoolExecutor(1, thread_name_prefix="map") as aside:
        placing = aside.submit(_placed, decoder, near, fires, beside)
        weights = weights_of(dictionary, decoder, effects, near)
        pages = Pages(firings, sums, weights, Sources(text, corpus, windows, model.vocabulary))
        write_pages(out, pages, model.tokenizer.bytes_of)
        layout, nearby = placing.result()
    columns = pages.columns
    if nearby is not None:
        columns["other"] = nearby.which[:, 0].copy()
        columns["other_cosine"] = np.where(fires, nearby.amount[:, 0], np.float32(np.nan))
    return _Written(columns, firings.counts, firings.rows, layout)


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
    decoder: Float[torch.Tensor, "features width"],
    near: Ranked,
    fires: Array,
    beside: tuple[Atlas, Dictionary] | None,
) -> tuple[Layout, Ranked | None]:
    """Return a map, its clusters unnamed; or places on that of another atlas, and what is near."""
    if beside is None:
        return lay_out(decoder, near, fires), None
    other, mapped = beside
    columns = other.columns
    layout = Layout(columns["x"], columns["y"], columns["cluster"], other.manifest["clusters"])
    return place_beside(decoder, fires, _unit_rows(mapped), layout)


def _unit_rows(dictionary: Dictionary) -> Float[torch.Tensor, "features width"]:
    """Return decoder rows at length 1."""
    return torch.nn.functional.normalize(dictionary.directions().float(), dim=1)


def _shown(other: Atlas, vocabulary: Sequence[bytes]) -> OtherAtlas:
    """Return what a map shows of the features of ``other``: no tokens of another vocabulary."""
    names = ("x", "y", "tokens") if other.vocabulary == [*vocabulary] else ("x", "y")
    return OtherAtlas(other.path.resolve().parent.name, {n: other.columns[n] for n in names})
