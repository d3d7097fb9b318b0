"""The one training loop, its batches, its augmentation, and its ledger of every sample's history."""

from trueread.training.config import TrainConfig
from trueread.training.evaluate import predict_logits, predict_probabilities
from trueread.training.hooks import Hooks, Setup, Step
from trueread.training.ledger import Ledger
from trueread.training.loop import Fitted, fit

__all__ = [
    "Fitted",
    "Hooks",
    "Ledger",
    "Setup",
    "Step",
    "TrainConfig",
    "fit",
    "predict_logits",
    "predict_probabilities",
]
