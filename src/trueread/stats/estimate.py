"""A number with its uncertainty: the one type in which every room reports what it measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Estimate:
    """A value with a 95 % interval.

    value, low, high: the point estimate and the interval's ends; nan where they could not be computed.
    n: images it rests on. n_clusters: independent units (patients) among them.
    spread: standard deviation over seeds, when the value is a mean over several; else None.
    n_seeds: how many seeds were averaged.
    """

    value: float
    low: float = float("nan")
    high: float = float("nan")
    n: int = 0
    n_clusters: int = 0
    spread: float | None = None
    n_seeds: int = 1

    def __str__(self) -> str:
        return self.text()

    def text(self, *, digits: int = 3, signed: bool = False) -> str:
        """ "0.914 (0.887 to 0.938)"; a plus sign for differences when `signed`; the value alone without an interval."""
        sign = "+" if signed else ""
        if self.value != self.value:  # nan
            return "not defined"
        head = f"{self.value:{sign}.{digits}f}"
        if self.low != self.low or self.high != self.high:
            return head
        return f"{head} ({self.low:{sign}.{digits}f} to {self.high:{sign}.{digits}f})"

    def to_json(self) -> dict[str, Any]:
        """A dict for json.dump; nan becomes None, because JSON has no nan."""
        return {k: (None if isinstance(v, float) and v != v else v) for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Estimate:
        """The inverse of `to_json`."""
        undefined = {k: float("nan") for k in ("value", "low", "high") if data.get(k) is None}
        return cls(**{**data, **undefined})
