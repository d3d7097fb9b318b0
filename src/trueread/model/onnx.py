"""A classifier as one ONNX file: normalisation, network, temperature and its card inside, and back as a predictor.

The exporter is PyTorch's (torch.onnx.export with dynamo); the file runs in onnxruntime, and is compared with the
network before it is given out.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trueread.errors import InputError, TruereadError
from trueread.files import whole
from trueread.model.card import Card
from trueread.model.classifier import Classifier, to_probabilities
from trueread.model.predictor import checked

if TYPE_CHECKING:
    import onnxruntime

CARD_KEY = "trueread.card"  # of the file's metadata
OPSET = 20
APART = 1e-4  # in probabilities, that the file and the network may be apart
TRIED_ON = 3  # random images
MISSING = "ONNX files need onnx, onnxscript and onnxruntime; install them: pip install trueread[onnx]"


class _Deployed(nn.Module):
    """What is in the file: images in [0,1] -> calibrated probabilities and logits."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.network, self.card = classifier.network, classifier.card
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", classifier.mean.clone())
        self.register_buffer("std", classifier.std.clone())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network((images - self.mean) / self.std)
        return to_probabilities(logits, self.card), logits


class OnnxPredictor:
    """A classifier that was exported, as audits and `predict` ask it; without gradients.

    card: as it was when the file was made. quantised: whether its weights are 8-bit integers.
    """

    has_gradients = False

    def __init__(self, path: str | Path) -> None:
        """Raises InputError for a file that is missing, broken, or not exported by trueread."""
        self.path = Path(path)
        self.session = _session(self.path)
        facts = self.session.get_modelmeta().custom_metadata_map
        if CARD_KEY not in facts:
            raise InputError(f"{path} was not exported by trueread, and has no card; export it with `trueread export`.")
        try:
            self.card = Card.model_validate_json(facts[CARD_KEY])
        except ValueError:
            raise InputError(f"the card in {path} cannot be read; export the classifier again.") from None
        self.quantised = facts.get("trueread.quantised") == "True"

    def probabilities(self, images: Tensor) -> Tensor:
        """float [B,C,...] in [0,1] -> calibrated probabilities [B,K]. Raises InputError for other shapes."""
        expected = self.card.input_shape
        if tuple(images.shape[1:]) != expected:
            raise InputError(f"this file reads images of shape [B, {', '.join(map(str, expected))}].")
        given = images.detach().float().cpu().contiguous().numpy()
        answer = self.session.run(["probabilities"], {"images": given})[0]
        return torch.from_numpy(checked(answer, (len(images), len(self.card.classes)), task=self.card.task))


def export_onnx(classifier: Classifier, path: str | Path, *, calibration: Tensor | None = None) -> Path:
    """Write a classifier as an ONNX file of any batch size: `images` [B,C,...] in [0,1] -> `probabilities`, `logits`.

    calibration: images float [n,C,...] in [0,1]; weights and activations then become 8-bit integers, whose ranges are
    those on these images. Without it the file is compared with the network, and is as exact as float32 allows.
    Returns the path. Raises InputError without onnx, DiskFull, and TruereadError when file and network disagree.
    """
    path = Path(path)
    deployed = _Deployed(classifier).cpu().eval()
    example = torch.rand(2, *classifier.card.input_shape)
    with whole(path) as part, tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model.onnx"
        with _quiet():
            _export(deployed, example, made)
            if calibration is not None:
                made = _quantised(made, calibration.float().cpu().numpy())
        _with_card(made, part, classifier.card, quantised=calibration is not None)
        if calibration is None:
            _compare(part, deployed, classifier.card)
    return path


def _export(deployed: nn.Module, example: Tensor, path: Path) -> None:
    try:
        import onnxscript  # noqa: F401  (torch asks for it late, and says so badly)
    except ImportError:
        raise InputError(f"{MISSING}.") from None
    torch.onnx.export(
        deployed, (example,), path, input_names=["images"], output_names=["probabilities", "logits"], dynamo=True,
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}}, opset_version=OPSET, external_data=False,
        verbose=False,
    )  # fmt: skip


def _quantised(path: Path, images: NDArray[np.float32]) -> Path:
    """The file with 8-bit weights and activations, in the QDQ form that onnxruntime fuses."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            parts = [images[i : i + 32] for i in range(0, len(images), 32)]
            self.left: Iterator[dict[str, Any]] = iter([{"images": part} for part in parts])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

    ready, made = path.with_name("ready.onnx"), path.with_name("int8.onnx")
    quant_pre_process(path, ready, skip_symbolic_shape=True)
    quantize_static(
        ready, made, Images(), per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],
    )  # fmt: skip
    return made


def _with_card(made: Path, path: Path, card: Card, *, quantised: bool) -> None:
    import onnx

    model = onnx.load(made)
    facts = {CARD_KEY: json.dumps(card.model_dump()), "trueread.quantised": str(quantised)}
    onnx.helper.set_model_props(model, facts)
    path.write_bytes(model.SerializeToString())


def _compare(path: Path, deployed: nn.Module, card: Card) -> None:
    images = torch.rand(TRIED_ON, *card.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = deployed(images)[0].numpy()
    found = _session(path).run(["probabilities"], {"images": images.numpy()})[0]
    apart = float(np.abs(found - expected).max())
    if not apart <= APART:
        raise TruereadError(
            f"the ONNX file and the network are {apart:.2g} apart in their probabilities (at most {APART:g}); export "
            "another backbone, and please report this one."
        )


def _session(path: Path) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
    except ImportError:
        raise InputError(f"{MISSING}.") from None
    if not path.is_file():
        raise InputError(f"there is no file {path}; check the path.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a family of its own
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is no ONNX file that onnxruntime reads ({reason}); export it again.") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's remarks on its own deprecations are not for users."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
