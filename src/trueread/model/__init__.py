"""The classifier: normalisation, backbone, taps into intermediate layers, saving."""

from trueread.model.classifier import Classifier, Output, Predictor, ProbabilityFunction, to_probabilities

__all__ = ["Classifier", "Output", "Predictor", "ProbabilityFunction", "to_probabilities"]
