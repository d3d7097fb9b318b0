"""One file per idea about how to train. One line per method registers it."""

from trueread.method import (  # noqa: F401  (each registers its method)
    adversarial,
    aum,
    balanced_sampling,
    balanced_softmax,
    class_weights,
    clean_only,
    confident_learning,
    corruption_augment,
    danil,
    dfr,
    erm,
    final_layer_distillation,
    focal,
    gradient_penalty,
    groupdro,
    jtt,
    label_smoothing,
    ldam,
    logit_adjustment,
    loss_truncation,
    mil,
    mixup,
    nonrobust_only,
    ohem,
    one_shot,
    region_attention,
    self_paced,
    specialist,
    step_e,
    supcon,
    true_labels,
)
from trueread.method.base import METHODS, Composite, Method, build_method, method

__all__ = ["METHODS", "Composite", "Method", "build_method", "method"]
