"""One file per idea about how to train. One line per method registers it."""

from trueread.method import (  # noqa: F401  (each registers its method)
    adversarial,
    aum,
    balanced_sampling,
    class_weights,
    clean_only,
    confident_learning,
    corruption_augment,
    dfr,
    erm,
    final_layer_distillation,
    focal,
    groupdro,
    jtt,
    label_smoothing,
    logit_adjustment,
    loss_truncation,
    mixup,
    nonrobust_only,
    one_shot,
    self_paced,
    specialist,
    step_e,
    true_labels,
)
from trueread.method.base import METHODS, Composite, Method, build_method, method

__all__ = ["METHODS", "Composite", "Method", "build_method", "method"]
