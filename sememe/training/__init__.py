"""Training: one loop for every kind of dictionary, resumable to the byte."""

from sememe.training.config import TrainConfig
from sememe.training.loop import train
from sememe.training.revival import Resampling
from sememe.training.streams import ActivationStream, ModelStream
from sememe.training.trainer import Trainer

__all__ = ["ActivationStream", "ModelStream", "Resampling", "TrainConfig", "Trainer", "train"]
