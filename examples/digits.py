"""A model and data of one's own: a small convolutional network that reads handwritten digits.

It is trained here on the 1,797 digits that scikit-learn brings. What its second convolution
computes is stored, a dictionary is trained on that, and the images are shown on which some features
are strongest, with the place in brackets.
"""

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

import sememe
from sememe.dictionaries import TopK

data = load_digits()
images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16  # (1797, 1, 8, 8)
labels = torch.tensor(data.target)

torch.manual_seed(0)
network = nn.Sequential(
    *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
    *(nn.Flatten(), nn.Linear(32 * 4 * 4, 10)),
)
optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
train, test = slice(0, 1500), slice(1500, None)
for _ in range(10):
    for chosen in torch.randperm(1500).split(100):
        loss = nn.functional.cross_entropy(network(images[chosen]), labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
network.eval()
right = (network(images[test]).argmax(1) == labels[test]).float().mean()
print(f"the network reads {right:.1%} of the digits that it has not seen")

# Any iterable of batches will do. The second ReLU gives maps (images, 32, 4, 4): 16 rows an image.
site = "module:4"
store = sememe.harvest_module(network, images.split(128), [site], Path("digits/activations"))
print(f"{store.rows:,} activations of width {store.width(site)}")

config = sememe.TrainConfig(features=64, nonlinearity=TopK(4), batch=512, passes=10)
sememe.train(sememe.Stream(store, (site,)), config, Path("digits/dictionary"))

dictionary = sememe.Dictionary.load(Path("digits/dictionary"))
figures = dictionary.manifest["figures"]
print(", ".join(f"{name} {value:.3g}" for name, value in figures.items()))

# Rows are in the order of images, and in each of its places: (image, 4 y + x, feature).
code = dictionary.encode(store.read(site, 0, store.rows))
values = torch.zeros(store.rows, 64).scatter(1, code.indices.long(), code.values)
strongest, place = values.view(len(images), 16, 64).max(dim=1)

top = labels[strongest.topk(20, dim=0).indices]  # (20, feature)
purity, digit = torch.stack([(top == number).sum(0) for number in range(10)]).max(0)
for feature in purity.argsort(descending=True, stable=True)[:3].tolist():
    print(f"\nfeature {feature}: {purity[feature]} of its 20 strongest images are of a", end=" ")
    print(f"{digit[feature]}; the first four")
    drawings = []
    for number in strongest[:, feature].topk(4).indices.tolist():
        y, x = divmod(int(place[number, feature]), 4)
        drawing = []
        for row, line in enumerate(images[number, 0].tolist()):
            gaps = [" "] * 9
            if row // 2 == y:
                gaps[2 * x], gaps[2 * x + 2] = "[", "]"
            shades = [" .:*#"[int(4 * ink)] for ink in line]
            drawing.append(
                "".join(gap + shade for gap, shade in zip(gaps, [*shades, "   "], strict=True))
            )
        drawings.append(drawing)
    print("\n".join("".join(lines).rstrip() for lines in zip(*drawings, strict=True)))
