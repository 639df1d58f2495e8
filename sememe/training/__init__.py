"""Training: one loop for every kind of dictionary, resumable to the byte."""

from sememe.training.config import TrainConfig
from sememe.training.loop import train
from sememe.training.streams import ActivationStream

__all__ = ["ActivationStream", "TrainConfig", "train"]
