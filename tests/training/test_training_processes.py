"""Two processes that share every batch end where one process with the whole batch does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from tiny import tiny_cohort, tiny_config
from trueread.errors import InputError
from trueread.method.base import Method, build_method
from trueread.method.curvssl import CurvatureObjective
from trueread.model.classifier import Classifier
from trueread.training.evaluate import predict_probabilities
from trueread.training.loop import fit
from trueread.training.processes import Processes, _batch_norm, _variables, first_host, processes

HERE = Path(__file__).resolve().parent
TOLERANCE = 0.03  # of the way that training went: a sum taken in another order moves a few activations across
# the kink of their ReLU, so that gradients agree to about a hundredth only; in float64 they agree to the last digits


class Weighs(Method):
    """Weights and a penalty, so that sums over the batch are not means of means."""

    name = "weighs"

    def weights(self, step):
        return 1.0 + (step.index % 3)

    def penalty(self, step):
        return {"size": 0.01 * step.logits.square().sum(1).mean()}


CASES = {
    "plain": {"method": "erm"},
    "sampled, clipped, averaged": {
        "method": "balanced-sampling", "clip_norm": 1.0, "ema_decay": 0.9, "augment": "any", "batch_size": 23,
    },
    "weighted": {"method": None, "optimizer": "sgd", "learning_rate": 0.05},
}  # fmt: skip


def trained(case: str):
    options = dict(CASES[case])
    method = options.pop("method")
    hooks = build_method(method) if method else Weighs()
    config = tiny_config(**{"epochs": 4, "select": "last", **options})
    return fit(tiny_cohort(n=101, share=0.3), hooks, config, seed=3, quiet=True)


def gradients_in_float64() -> list[torch.Tensor]:
    """Of a weighted loss of a whole training split, added up over the processes."""
    cohort, me = tiny_cohort(n=101, share=0.3), processes()
    rows = cohort.rows("train")
    torch.manual_seed(0)
    classifier = Classifier.build("compact", cohort=cohort, rows=rows).double().train()
    share = rows[me.share(len(rows))]
    images = torch.from_numpy(cohort.images[share]).double() / 255
    with me.shared_batch_norm():
        losses = F.cross_entropy(classifier(images).logits, torch.from_numpy(cohort.labels[share]), reduction="none")
    weights = torch.from_numpy(1.0 + share % 3)
    loss = (weights * losses).sum() / me.sum(weights.sum())
    loss.backward()
    me.sum_gradients(classifier.parameters())
    return [p.grad for p in classifier.parameters()]


def gradients_of_a_whole_batch() -> list[torch.Tensor]:
    """In float64, of a loss between all embeddings of a batch, of which each process makes its share."""
    cohort, me = tiny_cohort(n=41), processes()
    torch.manual_seed(0)
    classifier = Classifier.build("compact", cohort=cohort).double().train()
    share = np.arange(41)[me.share(41)]
    images = torch.from_numpy(cohort.images[share]).double() / 255
    with me.shared_batch_norm():
        views = [me.joined(classifier(x).features) for x in (images, images.flip(-1))]
    objective = CurvatureObjective(form="corr", kernel="rbf", k=5, neighbours="own", share=0.5, redundancy=0.005)
    (sum(objective(*views).values()) * len(share) / 41).backward()
    me.sum_gradients(classifier.parameters())
    return [p.grad for p in classifier.parameters() if p.grad is not None]


def started(case: str) -> torch.Tensor:
    """The weights before the first step."""
    options = {k: v for k, v in CASES[case].items() if k != "method"}
    config = tiny_config(**{**options, "epochs": 1, "learning_rate": 1e-12, "select": "last"})
    fitted = fit(tiny_cohort(n=101, share=0.3), None, config, seed=3, quiet=True)
    return torch.cat([p.flatten() for p in fitted.classifier.parameters()]).detach()


def facts(fitted) -> dict:
    return {
        "weights": torch.cat([p.flatten() for p in fitted.classifier.parameters()]).detach(),
        "probabilities": torch.from_numpy(predict_probabilities(fitted.classifier, tiny_cohort(n=101, share=0.3))),
        "loss": fitted.ledger.loss,
        "history": fitted.history[["train_loss", "val_loss", "val_auroc"]].to_numpy().tolist(),
        "threshold": fitted.classifier.card.threshold,
    }


def main(out: str) -> None:
    """What each of the processes does."""
    torch.set_num_threads(1)
    rank = processes().rank
    for number, case in enumerate(CASES):
        torch.save(facts(trained(case)), Path(out) / f"{number}-{rank}.pt")
    torch.save(gradients_in_float64(), Path(out) / f"gradients-{rank}.pt")
    torch.save(gradients_of_a_whole_batch(), Path(out) / f"joined-{rank}.pt")


def torchrun(*command: str, n: int = 2, **options) -> subprocess.CompletedProcess:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={n}", f"--master-port={port}"]
    paths = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "PYTHONWARNINGS": "default"}
    return subprocess.run([*start, *command], capture_output=True, text=True, timeout=300, env=environment, **options)


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("together")
    done = torchrun(str(Path(__file__)), str(out))
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CASES)), ids=CASES)
class TestTwoProcesses:
    def test_end_where_one_does(self, together, number):
        alone, start = facts(trained(list(CASES)[number])), started(list(CASES)[number])
        shared = torch.load(together / f"{number}-0.pt", weights_only=True)
        way = (alone["weights"] - start).norm()
        assert (alone["weights"] - shared["weights"]).norm() < TOLERANCE * way
        assert torch.allclose(alone["probabilities"], shared["probabilities"], atol=0.02)
        if "sampled" not in list(CASES)[number]:  # of a sample drawn twice, one process keeps the last, two the mean
            assert torch.allclose(alone["loss"], shared["loss"], atol=0.02, equal_nan=True)
        np.testing.assert_allclose(alone["history"], shared["history"], atol=0.02)

    def test_have_the_same_weights_and_the_whole_ledger(self, together, number):
        first, second = (torch.load(together / f"{number}-{rank}.pt", weights_only=True) for rank in (0, 1))
        assert torch.equal(first["weights"], second["weights"])
        assert torch.equal(first["loss"].nan_to_num(-1), second["loss"].nan_to_num(-1))
        if "sampled" not in list(CASES)[number]:
            assert not first["loss"].isnan().any()
        assert first["history"] == second["history"]
        assert first["threshold"] == second["threshold"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "made"), [("gradients", gradients_in_float64), ("joined", gradients_of_a_whole_batch)]
)
def test_gradients_are_those_of_one_process_to_the_last_digits(together, name, made):
    for rank in (0, 1):
        shared = torch.load(together / f"{name}-{rank}.pt", weights_only=True)
        for one, other in zip(made(), shared, strict=True):
            assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_a_command_under_torchrun_writes_and_speaks_once(tmp_path):
    command = ["train", "phantom", "-s", "n_images=160", "-s", "size=28", "-t", "epochs=1", "-t", "batch_size=16"]
    done = torchrun("-m", "trueread", *command, "-t", "precision=fp32", "-o", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("balanced accuracy") <= 1
    assert done.stderr.count("kept epoch 1") == 1
    assert "2 processes, each CPU" in done.stderr
    assert (tmp_path / "run" / "report.html").is_file()


class TestShares:
    @pytest.mark.parametrize("size", [1, 2, 3, 7])
    @pytest.mark.parametrize("n", [7, 24, 100])
    def test_cover_everything_once_in_order_and_evenly(self, n, size):
        shares = [list(range(n)[Processes(rank, size).share(n)]) for rank in range(size)]
        assert [i for share in shares for i in share] == list(range(n))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


class TestStart:
    @pytest.fixture(autouse=True)
    def _forget(self):
        processes.cache_clear()
        yield
        processes.cache_clear()

    def test_a_process_on_its_own(self, monkeypatch):
        monkeypatch.setenv("SLURM_NTASKS", "8")  # an sbatch script that does not use srun
        assert processes() == Processes(0, 1)

    def test_half_set_variables(self, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(InputError, match="WORLD_SIZE is above 1, but RANK is not set; start with torchrun"):
            processes()


class TestSlurm:
    @pytest.mark.parametrize(
        ("nodes", "first"),
        [("gpu07", "gpu07"), ("gpu[07-09,12],cpu3", "gpu07"), ("a1,a2", "a1"), ("node-x[3]", "node-x3"),
         ("10.0.0.1", "10.0.0.1")],
    )  # fmt: skip
    def test_the_first_machine_of_a_list(self, nodes, first):
        assert first_host(nodes) == first

    def test_what_srun_says(self, monkeypatch):
        for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        told = {"NTASKS": "4", "PROCID": "3", "LOCALID": "1", "JOB_ID": "1234567", "NODELIST": "gpu[2-3]"}
        for name, value in told.items():
            monkeypatch.setenv(f"SLURM_{name}", value)
        for name in ("MASTER_ADDR", "MASTER_PORT"):  # so that what is set below is taken back
            monkeypatch.setenv(name, "")
            del os.environ[name]
        assert _variables() == (3, 4, 1)
        assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("gpu2", "19567")

    def test_no_machine(self):
        with pytest.raises(InputError, match="names no machine"):
            first_host("[3]")


class TestSharedBatchNorm:
    """In a group of one, which does all the sums, against torch's own."""

    @pytest.fixture(autouse=True)
    def _group(self, tmp_path):
        store = tmp_path / "store"
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
        yield
        dist.destroy_process_group()

    @pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4, 5), (4, 3, 2, 3, 4)])
    @pytest.mark.parametrize("training", [True, False])
    def test_is_torchs_with_all_its_derivatives(self, shape, training):
        torch.manual_seed(0)
        images = torch.randn(shape, dtype=torch.float64) * 3 + 5
        found = [self.outcome(norm, images, training) for norm in (F.batch_norm, _batch_norm)]
        for one, other in zip(*found, strict=True):
            assert torch.allclose(one.double(), other.double(), atol=1e-5)

    def outcome(self, norm, images, training):
        images = images.float().requires_grad_()
        weight = torch.tensor([1.0, 2.0, -1.0], requires_grad=True)
        bias = torch.tensor([0.5, 0.0, 1.0], requires_grad=True)
        mean, variance = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 0.5, 2.0])
        out = norm(images, mean, variance, weight, bias, training, 0.2, 1e-5)
        first = torch.autograd.grad(out.pow(3).sum(), [images, weight, bias], create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), [images, weight])
        return out.detach(), mean, variance, *(g.detach() / 100 for g in (*first, *second))


if __name__ == "__main__":
    main(sys.argv[1])
