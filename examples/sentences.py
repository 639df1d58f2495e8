"""Another kind of model and input: a dictionary of what sentences are about.

The sentences are the first lines of the documentation in Python's own library; MiniLM-L6 makes a
vector of each. Takes the number of sentences: ``python examples/sentences.py 4000``.
"""

import ast
import random
import sys
import sysconfig
from pathlib import Path

import torch

import sememe
from sememe.dictionaries import TopK
from sememe.models.sentences import load_sentence_encoder


def first_lines(folder: Path) -> list[str]:
    """Return the first paragraph of every docstring under ``folder``, one line each."""
    found = set()
    for path in folder.rglob("*.py"):
        if {"site-packages", "dist-packages", "test", "tests", "idlelib"} & set(path.parts):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
                if 25 <= len(text) <= 150:
                    found.add(text)
    return sorted(found)


wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
sentences = first_lines(Path(sysconfig.get_path("stdlib")))
random.Random(0).shuffle(sentences)
sentences = sorted(sentences[:wanted], key=len)  # batches of like lengths need little padding
print(f"{len(sentences):,} sentences")

encoder = load_sentence_encoder()
batches = [encoder.tokens(sentences[first : first + 64]) for first in range(0, len(sentences), 64)]
site = "module:pool"
store = sememe.harvest_module(encoder, batches, [site], Path("sentences/activations"))

config = sememe.TrainConfig(features=256, nonlinearity=TopK(8), batch=128, passes=50)
sememe.train(sememe.Stream(store, (site,)), config, Path("sentences/dictionary"))

dictionary = sememe.Dictionary.load(Path("sentences/dictionary"))
figures = dictionary.manifest["figures"]
print(", ".join(f"{name} {value:.3g}" for name, value in figures.items()))

# A row's document is the number of its sentence: the store keeps the order of the batches.
code = dictionary.encode(store.read(site, 0, store.rows))
values = torch.zeros(store.rows, 256).scatter(1, code.indices.long(), code.values)
for feature in values.amax(0).argsort(descending=True)[:6].tolist():
    print(f"\nfeature {feature}, on {(values[:, feature] > 0).float().mean():.1%} of the sentences")
    for row in values[:, feature].topk(min(4, store.rows)).indices.tolist():
        print(f"  {values[row, feature]:5.1f}  {sentences[row]}")
