"""The classifier: normalisation, backbone, taps into intermediate layers, saving."""

from trueread.model.classifier import Classifier, Output, to_probabilities
from trueread.model.predictor import Predictor, ProbabilityFunction

__all__ = ["Classifier", "Output", "Predictor", "ProbabilityFunction", "to_probabilities"]
