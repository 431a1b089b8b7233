"""Evaluate a classifier by a suite of attacks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from robustgen.config.recipe import DataConfig, EvaluationConfig, ThreatConfig
from robustgen.config.source import Source
from robustgen.records.verdicts import Verdicts, adversarial_file, clean_file
from robustgen.stages.common import check_not_begun_by_one, load_judged, threat_model
from robustgen.stages.recording import current_info, recording
from robustgen.storage.arrays import write_array
from robustgen.storage.files import read_json, write_json

if TYPE_CHECKING:
    from robustgen.contracts import Progress

ABOUT_IMAGES = "images: "
"""How notes begin that say how images were converted; they were printed when the images were read."""


@dataclass(frozen=True)
class Evaluate:
    """Evaluate one classifier on the test images of a data set; under torchrun, each process takes a share of them."""

    source: Source
    data: DataConfig
    threat: ThreatConfig
    config: EvaluationConfig
    path: Path
    seed: int
    command: str = ""
    """The command line, to be stored with the provenance of the verdicts; a run keeps its own provenance."""

    shared: ClassVar[bool] = True

    def __call__(self, device: str, progress: Progress) -> str:
        verdicts = self.verdicts(device, progress)
        said = [f"clean {verdicts.clean_accuracy}, robust {verdicts.robust_accuracy} -> {self.path}"]
        notes = (*verdicts.notes, *filter(None, [verdicts.precision_note]))
        said += [f"Note: {note}" for note in notes if not note.startswith(ABOUT_IMAGES)]
        return "\n".join(said + [f"Red flag: {flag}" for flag in verdicts.flags])

    def verdicts(self, device: str, progress: Progress) -> Verdicts:
        """The verdicts, which are also saved to `path`."""
        from robustgen.evaluation.cascade import evaluate, times_file
        from robustgen.evaluation.suites import find_suite
        from robustgen.images import to_unit
        from robustgen.models.sources import check_accepts, check_gradient
        from robustgen.runtime.distributed import place, wait_for_all

        settings, path = self.config, self.path
        find_suite(settings.suite)
        test, model = load_judged(self.data, self.source)
        model.to(device)
        two = to_unit(test.pixels(device)[:2]).contiguous()
        check_accepts(model, self.source.place, two, len(test.info.classes), test.numbered)
        check_gradient(model, self.source.place, two)
        rank, world = place()
        if len(test) < world and not path.exists():
            raise ValueError(f"{len(test)} images are too few for {world} processes; use fewer (--gpus-per-stage 1)")
        if settings.keep_images and rank == 0:
            write_array(clean_file(path), test.images)
        part = path if world == 1 else path.with_name(f"{path.stem}.part-{rank}-of-{world}.npz")
        provenance: AbstractContextManager[None] = nullcontext()
        if self.command and rank == 0:
            info = current_info(self.command, self.source, self.data, tuple(test.info.classes), model, device)
            begun, finished = part.exists() or path.exists(), path.exists() and Verdicts.load(path).finished
            provenance = recording(path, info, begun, finished)
        if world > 1 and path.exists():
            check_not_begun_by_one(path, Verdicts.load(path).finished)
        if world == 1 or not path.exists():
            with provenance:
                verdicts = evaluate(
                    model,
                    to_unit(test.pixels(device)[rank::world]),
                    test.targets(device)[rank::world],
                    threat_model(self.threat),
                    settings.suite,
                    seed=self.seed,
                    batch_size=settings.batch_size,
                    path=part,
                    keep_images=settings.keep_images,
                    precision=settings.precision,
                    rows=test.source_rows[rank::world],
                    notes=[f"{ABOUT_IMAGES}{note}" for note in test.notes],
                    progress=progress,
                )
            if world == 1:
                return verdicts
        wait_for_all()
        if rank == 0 and not path.exists():
            merge_parts(path, [path.with_name(f"{path.stem}.part-{number}-of-{world}.npz") for number in range(world)])
        wait_for_all()
        for file in (part, times_file(part), adversarial_file(part)):
            file.unlink(missing_ok=True)
        return Verdicts.load(path)


def merge_parts(path: Path, parts: list[Path]) -> None:
    """Merge the results of P processes, where part p holds every P-th image: images, seconds, then verdicts.

    Red flags of a finished evaluation are those of all images, not of the shares.
    """
    import numpy as np

    from robustgen.evaluation.cascade import times_file
    from robustgen.evaluation.checks import flags_after

    shares = [Verdicts.load(part) for part in parts]
    whole = Verdicts.merge(shares)
    of_shares = {flag for share in shares for flag in flags_after(share)}
    whole.flags = (*(flag for flag in whole.flags if flag not in of_shares), *flags_after(whole))
    if adversarial_file(parts[0]).exists():
        kept = [np.load(adversarial_file(part)) for part in parts]
        images = np.empty((len(whole), *kept[0].shape[1:]), dtype=kept[0].dtype)
        for number, some in enumerate(kept):
            images[number :: len(parts)] = some
        write_array(adversarial_file(path), images)
    seconds: dict[str, float] = {}
    for part in parts:
        for attack, time in read_json(times_file(part)).items():
            seconds[attack] = round(seconds.get(attack, 0.0) + time, 3)
    write_json(times_file(path), seconds)
    whole.save(path)
