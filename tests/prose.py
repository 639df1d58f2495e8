"""Made-up text with structure, so that small jobs need no network."""

import random
from pathlib import Path

from sememe.activations.rules import HarvestConfig
from sememe.dictionaries import TopK
from sememe.job import MapConfig
from sememe.training.config import TrainConfig

SUBJECTS = ["The captain", "A sailor", "My sister", "The old professor", "Nobody", "The committee"]
VERBS = ["watched", "measured", "forgot", "painted", "sold", "described"]
OBJECTS = ["the sea", "a red house", "two letters", "the number 1984", "its answer", "the hills"]
ENDINGS = ["in the morning.", "without a word.", "for 37 days.", "as before.", "because it rained."]


def sentence(draw: random.Random) -> str:
    return " ".join(draw.choice(words) for words in (SUBJECTS, VERBS, OBJECTS, ENDINGS))


def prose(path: Path, *, documents: int = 60, sentences: int = 12, seed: int = 0) -> Path:
    """Write ``documents`` text files of made-up sentences and code under ``path``; return it."""
    draw = random.Random(seed)
    path.mkdir(parents=True, exist_ok=True)
    for number in range(documents):
        lines = [sentence(draw) for _ in range(draw.randint(2, sentences))]
        if number % 4 == 0:
            lines.append(f"def area_{number}(width, height):\n    return width * height\n")
        (path / f"{number:04d}.txt").write_text("\n".join(lines))
    return path


def small_job(model: Path, text: Path) -> MapConfig:
    """The main job on the model in ``model`` and the files in ``text``, in a few seconds."""
    return MapConfig(
        model=str(model),
        tokens=8000,
        text=(str(text),),
        harvest=HarvestConfig(context=64, shard_rows=2000),
        train=TrainConfig(
            features=128, nonlinearity=TopK(8), passes=3, batch=256, checkpoint_every=10
        ),
    )
