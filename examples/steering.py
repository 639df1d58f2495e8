"""A feature of one's own: a direction from two groups of sentences, turned up and taken away.

The direction is the difference of the mean activations of SmolLM2 on sentences about the sea and on
others. As a dictionary of one feature it is steered with like any trained one.
"""

import torch

import sememe
from sememe.dictionaries import DictionaryConfig, ReLU
from sememe.models.reading import read

SEA = (
    "The ship sailed out of the harbour into the open sea.",
    "Waves broke over the deck while the sailors hauled in their nets.",
    "The captain steered the boat past the reef towards the island.",
    "Salt water and wind are hard on the ropes and the sails.",
    "The tide carried the fishing boats back to the shore.",
)
OTHER = (
    "The committee met on Monday to talk about the budget.",
    "She put the bread into the oven and washed the dishes.",
    "The train left the station ten minutes after nine.",
    "He learnt to play the piano when he was seven years old.",
    "The new law makes it easier to open a small business.",
)
SITE = "layers.14.resid"

model = sememe.load_model("smollm2-135m", dtype="fp32")


def mean_activation(sentences: tuple[str, ...]) -> torch.Tensor:
    """Return the mean over all tokens but each sentence's first, an attention sink."""
    rows = [
        read(model, torch.tensor([model.tokenizer.encode(text)]), [SITE])[SITE][0, 1:]
        for text in sentences
    ]
    return torch.cat(rows).mean(0)


sea, other = mean_activation(SEA), mean_activation(OTHER)
direction = torch.nn.functional.normalize(sea - other, dim=0)
width = len(direction)
dictionary = sememe.Dictionary(
    DictionaryConfig((SITE,), (SITE,), (width,), (width,), features=1, nonlinearity=ReLU())
)
with torch.no_grad():
    dictionary.W_enc[0] = dictionary.W_dec[0] = direction
    dictionary.b_enc[0] = -direction @ other  # so that it fires beyond what other sentences have

strength = float(direction @ (sea - other))
print(f"a sentence about the sea has {strength:.1f} more of the direction than another one\n")

prompts = ["Yesterday we went to", "The most important thing in life is"]
for times in (0, 1, 2, 6):
    found = sememe.steer(model, {dictionary: {0: f"add:{times * strength}"}}, prompts, tokens=24)
    print(f"{times} times that much:")
    for pair in found.pairs:
        print(f"  {pair.prompt}|{' '.join(pair.steered.text.split())}")
        print(f"    perplexity {pair.steered.perplexity:.3g}, {found.applied[0].changed} changed")
    if found.warning:
        print(f"  {found.warning}")

(pair,) = sememe.steer(model, {dictionary: {0: "out"}}, ["The captain of the ship"]).pairs
print(f"\nwithout the direction:\n  {pair.prompt}|{' '.join(pair.steered.text.split())}")
print(f"as it is:\n  {pair.prompt}|{' '.join(pair.unsteered.text.split())}")
