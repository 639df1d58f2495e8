"""Describing features beside SAEDashboard: one dictionary, the same tokens, one after the other.

Both begin with token ids and let the model read them. SAEDashboard runs in an environment of its
own, whose Python is named with ``--peer``, for it needs older libraries than sememe (torch first,
then ``pip install sae-dashboard==0.8.0 sae-lens 'transformers<4.57' 'pyarrow<21' 'pandas<3'``,
without torchvision); without that sememe is measured alone. It takes features a group at a time
and reads the tokens anew for each group, so that one group tells its speed; sememe reads them once
and describes all. Its pages hold less: no co-firing features, sources, silent text or tokens before
and after. The map, which it does not draw, is in sememe's seconds. Seconds are of CPU time, on two
threads. Run it as ``python -m benchmarks.dashboard --run runs/demo --peer VENV/bin/python``.
"""

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin would count as work

import numpy as np
import safetensors.torch
import torch
from jaxtyping import UInt32

from benchmarks import command
from benchmarks.describe import seconds
from sememe.activations.in_order import LiveRows
from sememe.activations.rules import HarvestConfig
from sememe.artefacts import fingerprint
from sememe.atlas.describe import describe
from sememe.corpora.corpus import Corpus
from sememe.dictionaries import TopK
from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import SememeError, UsageError
from sememe.job import Run
from sememe.models.language_model import LanguageModel

WINDOW = 128
PEER = Path(__file__).with_name("dashboard_peer.py")


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    run: Path
    """What `sememe map` made of a Llama-like model with TopK at a layer's residual stream."""
    peer: Path | None = None
    """Python of an environment with sae-dashboard."""
    tokens: int = 16_384
    """Tokens that both read, in stretches of 128."""
    features: int = 128
    """Features that SAEDashboard describes, in one group; sememe describes all."""
    json: bool = False
    """Print one JSON object."""


class Stretches(Corpus):
    """Tokens of a corpus in memory, each stretch of ``WINDOW`` a document."""

    def __init__(self, ids: UInt32[np.ndarray, " tokens"], tokenizer: str) -> None:
        count = len(ids) // WINDOW
        self.path = Path("stretches")
        self.length = np.full(count, WINDOW, np.int32)
        self.start = np.arange(count, dtype=np.int64) * WINDOW
        self.offset, self.first = self.start, np.zeros_like(self.start)
        self.held_out = np.zeros(count, np.uint8)
        self.source = np.zeros(count, np.int16)
        self.sources = ["text"]
        self._ids = ids
        self.manifest = {"tokens": len(ids), "made_from": {"tokenizer": tokenizer}}
        self.hash = fingerprint(ids.tolist())

    def tokens(self, start: int, stop: int) -> UInt32[np.ndarray, " tokens"]:
        """Return the token ids of the global indices ``start`` to ``stop``."""
        return self._ids[start:stop]


def write_for_peer(
    folder: Path, settings: Settings, model: LanguageModel, dictionary: Dictionary, corpus: Corpus
) -> None:
    """Write what the peer reads: tokens, the dictionary as SAELens has it, the model."""
    nonlinearity = dictionary.config.nonlinearity
    layer, _, kind = dictionary.site.removeprefix("layers.").partition(".")
    if not isinstance(nonlinearity, TopK) or kind != "resid":
        raise UsageError(f"{settings.run}: expected TopK at a layer's resid, for the peer")
    folded = dictionary.fold()
    tensors = {
        "W_enc": folded.W_enc.T.contiguous(),
        "b_enc": folded.b_enc,
        "W_dec": folded.W_dec,
        "b_dec": folded.b_dec,
    }
    safetensors.torch.save_file(tensors, folder / "dictionary.safetensors")
    ids = corpus.tokens(0, len(corpus))
    np.save(folder / "tokens.npy", ids.reshape(-1, WINDOW).astype(np.int32))
    model.module.save_pretrained(folder / "model")
    asked = {
        "layer": int(layer),
        "k": nonlinearity.k,
        "features": settings.features,
        "threads": torch.get_num_threads(),
    }
    (folder / "asked.json").write_text(json.dumps(asked))


def run_peer(python: Path, folder: Path) -> dict[str, float]:
    """Let the peer describe what is in ``folder``; return its seconds."""
    done = subprocess.run(
        [python, PEER, folder],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        raise SememeError(f"{python} {PEER.name} failed: {done.stderr.strip()[-500:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


@torch.no_grad()
def measure(settings: Settings) -> dict[str, float]:
    """Describe the same tokens by both; return the figures."""
    torch.set_num_threads(2)
    run = Run(settings.run)
    dictionary, text, model = (
        Dictionary.load(run.dictionary),
        Corpus.open(run.corpus),
        run.load_model(),
    )
    whole = settings.tokens // WINDOW * WINDOW
    if not 0 < whole <= len(text):
        raise UsageError(f"tokens is {settings.tokens}; expected {WINDOW} to {len(text)}")
    corpus = Stretches(text.tokens(0, whole), model.tokenizer.hash)
    lead = 0 if model.tokenizer.bos is None else 1
    rows = LiveRows(model, corpus, (dictionary.site,), HarvestConfig(context=WINDOW + lead))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        describe(model, dictionary, rows, corpus, folder / "warm")
        own = seconds(lambda: describe(model, dictionary, rows, corpus, folder / "atlas"))
        features = dictionary.config.features
        figures = {
            "tokens": whole,
            "features": features,
            "features_per_cpu_minute": 60 * features / own.cpu,
            "features_per_minute": 60 * features / own.wall,
        }
        if settings.peer is not None:
            write_for_peer(folder, settings, model, dictionary, corpus)
            peer = run_peer(settings.peer, folder)
            figures |= {
                "peer_features": settings.features,
                "peer_features_per_cpu_minute": 60 * settings.features / peer["cpu"],
                "peer_features_per_minute": 60 * settings.features / peer["wall"],
                "peer_peak_mb": peer["peak_mb"],
            }
    return figures


if __name__ == "__main__":
    command.run(Settings, measure, __doc__)
