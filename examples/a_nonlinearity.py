"""A nonlinearity of one's own: GroupMax, the largest score of every group of features.

Defined, trained, saved and loaded; the trainer, the kernels and the file format need no change.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

import sememe
from sememe.dictionaries import NONLINEARITIES, Activity, Code, Encoder, Nonlinearity


@dataclass(frozen=True)
class GroupMax(Nonlinearity):
    """Of each of ``groups`` runs of neighbouring features the one with the largest score."""

    groups: int
    kind: ClassVar[str] = "groupmax"
    budgeted: ClassVar[bool] = True
    rescalable: ClassVar[bool] = False

    def forward(self, x: torch.Tensor, encoder: Encoder) -> Activity:
        """Return one entry a group; autograd takes the gradients back."""
        scores = torch.addmm(encoder.bias, x, encoder.W.T).relu().view(len(x), self.groups, -1)
        values, place = scores.max(dim=2)
        first = torch.arange(self.groups) * scores.shape[2]
        return Activity(Code((place + first).int(), values))


NONLINEARITIES[GroupMax.kind] = GroupMax

torch.manual_seed(0)
true = torch.nn.functional.normalize(torch.randn(64, 24), dim=1)
x = (torch.rand(20_000, 64) * (torch.rand(20_000, 64) < 0.05)) @ true
config = sememe.TrainConfig(features=128, nonlinearity=GroupMax(8), batch=256, passes=5)
sememe.train(sememe.MemoryStream(x), config, Path("groupmax"))

dictionary = sememe.Dictionary.load(Path("groupmax"))
print(dictionary.config.nonlinearity, dictionary.manifest["figures"])
