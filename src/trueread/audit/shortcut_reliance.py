"""Does a mark that has nothing to do with the disease move the prediction?"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trueread.audit.base import Audit, Better, Finding, Subject, audit
from trueread.audit.changed import some_patients
from trueread.audit.cue_strips import library_strips, planted_strips
from trueread.audit.cues import KINDS, curve, library_effects, per_class, per_cue, worst_measure
from trueread.audit.planted_cue import PlantedCue
from trueread.errors import NotMeasured
from trueread.shift.planting import PLANTED, Planting, planted_in


@audit(
    "shortcut-reliance",
    source="Boland et al. 2025, arXiv 2511.17421 (arrangements, delta-TPR); reliance from pairs is ours",
)
class ShortcutReliance(Audit):
    """How far probabilities move when marks are inserted; of a planted cue, also what it does to every arrangement."""

    question = "Does a mark that has nothing to do with the disease move the prediction?"
    better = Better.LOWER

    def __init__(
        self,
        *,
        strengths: Annotated[
            tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)
        ] = (0.25, 0.5, 1.0),
        images: Annotated[int, Field(ge=20)] = 200,
    ) -> None:  # fmt: skip
        """strengths: severities of the cues; the middle one is judged. images: into at most so many test images."""
        self.strengths, self.images = sorted(set(strengths)), images

    def run(self, subject: Subject) -> Finding:
        positions = some_patients(subject, self.images)
        effects, skipped = library_effects(subject, positions, self.strengths)
        if not effects:
            raise NotMeasured(" ".join(["no cue fits these images.", *skipped]))
        middle = self.strengths[len(self.strengths) // 2]
        judged = [e for e in effects if e.severity == middle]
        of_kind = {kind: found for kind in KINDS if (found := [e for e in judged if e.kind == kind])}
        worst = [max(found, key=lambda e: e.reliance.mean()) for found in of_kind.values()]
        finding = self.finding(
            measures={k: worst_measure(subject, found, positions) for k, found in of_kind.items()},
            tables={
                f"Per cue, severity {middle:g}": per_cue(subject, judged, positions),
                f"Per cue and class, severity {middle:g}": per_class(subject, judged, positions),
            },
            figures=[curve(subject, effects, positions)],
            strips=library_strips(subject, judged, positions),
            notes=[
                f"Cues were inserted into {len(positions)} of {len(subject.rows)} test images, whole patients drawn "
                "within classes.",
                f"Worst cue: {', '.join(f'{e.cue} ({e.kind})' for e in worst)}. It is found anew in every resample and "
                "for every seed, so the interval is that of the worst of several; the upward bias of choosing, as the "
                "resamples show it, is taken off.",
                "Diffuse cues also destroy evidence, so some movement is right; a local mark should move nothing.",
                *skipped,
            ],
        )
        what = planted_in(subject.cohort)
        if what is not None:
            add_planted(finding, subject, what)
        return finding


def add_planted(finding: Finding, subject: Subject, what: Planting) -> None:
    """Ask about the cue that was planted, and put its reliance first."""
    cohort = subject.cohort
    told = cohort.origin[PLANTED]["arrangements"]
    sides = {str(told.get(s, "clean")) for s in cohort.table["split"].iloc[subject.rows].unique()}
    if sides != {"clean"}:
        finding.notes.append(
            f"The planted cue '{what.shift.name}' was not asked about: the test images carry it already "
            f"({', '.join(sorted(sides - {'clean'}))}), so none is known without it; plant it with clean test images."
        )
        return
    planted = PlantedCue(subject, what)
    finding.measures = planted.measures() | finding.measures
    finding.tables = planted.tables() | finding.tables
    finding.figures = [planted.figure(), *finding.figures]
    finding.strips = planted_strips(subject, what.shift, planted.with_cue) + finding.strips
    shares = ", ".join(f"{share:.0%} of '{name}'" for name, share in what.prevalence.items())
    finding.notes.insert(
        0,
        f"The cue '{what.shift.name}' was planted in training into {shares}. Every test image was predicted with and "
        "without it; the arrangements differ in nothing but which of the two counts.",
    )
