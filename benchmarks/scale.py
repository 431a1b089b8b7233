"""Growth of memory and time with the number of images, classes and arms.

    python benchmarks/scale.py [--images N] [--verdicts N] [--arms N]

Each measurement runs in a process of its own, at a quarter, half and all of a size. `seconds` is the work alone; `MB`
what the process held at its peak beyond what it held before the work, pages of mapped files included (the system takes
them back when it needs them); `own MB` the same without them, at the end.

verdicts  50,000 images of 1,000 classes: save, load, tables of a report
proxies   5 million images of 8x8 (sparse files: no disk is used): label by a linear classifier, keep the most confident
          of each class, 200 batches of a training, measure by a linear map of the pixels
report    a page of 200 arms with 1,000 images each
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from timing import device, record

CLASSES = tuple("0123456789")


def own_memory() -> float:
    """Megabytes that this process holds now, without mapped files."""
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024


def measured(work: Callable[[], object]) -> dict[str, float]:
    """Seconds and megabytes of some work."""
    peak, own, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, own_memory(), time.perf_counter()
    kept = work()
    seconds = time.perf_counter() - began
    found = {
        "seconds": round(seconds, 2),
        "MB": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024),
        "own MB": round(own_memory() - own),
    }
    del kept
    return found


def verdicts_of(count: int, classes: int, seed: int = 0):  # type: ignore[no-untyped-def]
    """Finished verdicts of two attacks, two thirds robust."""
    from robustgen.records.verdicts import UNBROKEN, Verdicts

    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    found = Verdicts.unjudged("quick", "linf:8/255", ("clean", "apgd"), np.arange(count), labels, classes)
    found.clean_prediction[:] = labels
    for start in range(0, count, 1000):
        some = slice(start, min(start + 1000, count))
        found.clean_logits[some] = rng.standard_normal((some.stop - start, classes), dtype=np.float32)
    broken = rng.random(count) < 1 / 3
    found.fell_to[broken], found.broken_logits[broken] = 1, found.clean_logits[broken]
    found.faced[:] = np.where(found.fell_to == UNBROKEN, 2, 1)
    return found


def save_verdicts(folder: Path, size: int) -> dict[str, float]:
    found = verdicts_of(size, 1000)
    return measured(lambda: found.save(folder / "verdicts.npz"))


def load_verdicts(folder: Path, size: int) -> dict[str, float]:
    from robustgen.records.verdicts import Verdicts

    return measured(lambda: Verdicts.load(folder / "verdicts.npz"))


def verdict_tables(folder: Path, size: int) -> dict[str, float]:
    from robustgen.records.verdicts import Verdicts
    from robustgen.report.by_class import confusion, robust_by_class, worst

    found = Verdicts.load(folder / "verdicts.npz")
    names = [f"class {k}" for k in range(1000)]

    def tables() -> None:
        confusion(found), robust_by_class(found), worst(found, names)
        str((found.clean_accuracy, found.robust_accuracy, found.robust_after(1)))

    return measured(tables)


def make_proxies(folder: Path, size: int) -> dict[str, float]:
    """A set of black images: sparse files of the true size."""
    from robustgen.proxy.store import MANIFEST_FORMAT, shard_name, write_rows
    from robustgen.storage.files import write_json

    shard = size // 4
    for number in range(4):
        with (folder / shard_name(number)).open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (shard, 8, 8, 1)}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + shard * 64)
    labels = (np.arange(size) % 10).astype(np.int32)
    write_rows(folder / "condition.npy", np.int32, (size,), [labels])
    shards = [{"file": shard_name(n), "count": shard, "sha256": "0" * 64} for n in range(4)]
    content = {"format": MANIFEST_FORMAT, "count": size, "shape": [1, 8, 8], "classes": list(CLASSES), "shards": shards}
    write_json(folder / "manifest.json", {**content, "columns": {"condition": {"what": "sampled"}}})
    return {}


def linear():  # type: ignore[no-untyped-def]
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def label(folder: Path, size: int) -> dict[str, float]:
    from robustgen.proxy.labeling import pseudo_label
    from robustgen.proxy.store import ProxySet

    made_by = {"kind": "linear"}
    return measured(
        lambda: pseudo_label(ProxySet(folder), linear(), made_by=made_by, labels="condition", batch_size=8192)
    )


def keep_best(folder: Path, size: int) -> dict[str, float]:
    from robustgen.config.recipe import KeepConfig
    from robustgen.proxy.filtering import keep
    from robustgen.proxy.store import ProxySet

    return measured(lambda: keep(ProxySet(folder), KeepConfig(per_class=size // 50)))


def digits_of_training():  # type: ignore[no-untyped-def]
    from robustgen.config.recipe import DataConfig
    from robustgen.datasets import load_splits

    return load_splits(DataConfig(train=1000, validation=0, test=500))


def train_steps(folder: Path, size: int) -> dict[str, float]:
    from robustgen.proxy.store import ProxySet
    from robustgen.training.mixing import Mixture

    real = digits_of_training().train

    def steps() -> object:
        mixture = Mixture(real, ProxySet(folder), batch_size=512, real_share=0.3)
        for step in range(200):
            mixture.batch(step)
        return mixture

    return measured(steps)


def measure_quality(folder: Path, size: int) -> dict[str, float]:
    from robustgen.analysis.features import Features
    from robustgen.analysis.quality import measure
    from robustgen.proxy.store import ProxySet

    class Twice(linear().__class__):  # type: ignore[misc]
        """Features and logits: those of the linear classifier, twice."""

        def forward(self, images):  # type: ignore[no-untyped-def]
            import torch

            logits = super().forward(images)
            return torch.cat([logits, logits], 1)

    splits = digits_of_training()
    features = Features("classifier", Twice(*linear()), "0", 10, 10)
    proxies = ProxySet(folder)
    options = {"labeler": features, "labels": proxies.column("condition"), "judged": 2000, "batch_size": 8192}
    return measured(lambda: measure(proxies, splits.train, splits.test, features, **options))  # type: ignore[arg-type]


def make_run(folder: Path, size: int) -> dict[str, float]:
    """A finished run of that many arms, as far as its report reads it."""
    from robustgen.config.recipe import Arm
    from robustgen.recipes import RECIPES
    from robustgen.records.history import History
    from robustgen.storage.files import write_json
    from robustgen.storage.run_folder import RunDir

    base = RECIPES["digits-smoke"].to_json()
    arms = {"real": Arm(), **{f"a{n}": Arm(changes=(f"loss.beta={n}",)) for n in range(1, size)}}
    base |= {"arms": {name: arm.model_dump(mode="json") for name, arm in arms.items()}, "generators": {}}
    run = RunDir(folder)
    write_json(run.recipe, base)
    write_json(run.environment, {"python": "3"})
    counts = {"train": 100, "validation": 100, "test": 1000}
    data = {"name": "digits", "classes": list(CLASSES), "shape": [1, 8, 8], "counts": counts}
    write_json(run.data, data)
    history = History({"step": [float(n) for n in range(50)], "loss": [1.0] * 50})
    from robustgen.storage.arrays import save_arrays

    save_arrays(run.real_samples, {"images": np.zeros((40, 8, 8, 1), np.uint8), "labels": np.arange(40) % 10})
    for number, name in enumerate(arms):
        path = run.verdicts(name, base["evaluation"]["suite"])
        verdicts_of(1000, 10, number).save(path)
        write_json(path.with_suffix(".done"), {"classifier": f"{name}-0"})
        history.save(run.classifier(name, 0) / "history.npz")
    return {}


def report(folder: Path, size: int) -> dict[str, float]:
    from robustgen.report.page import write_report
    from robustgen.storage.run_folder import RunDir

    return measured(lambda: write_report(RunDir(folder)))


STEPS: dict[str, tuple[Callable[[Path, int], dict[str, float]], ...]] = {
    "verdicts": (save_verdicts, load_verdicts, verdict_tables),
    "proxies": (make_proxies, label, keep_best, train_steps, measure_quality),
    "report": (make_run, report),
}


def in_a_process(part: str, step: int, folder: Path, size: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--step", part, str(step), str(folder), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--verdicts", type=int, default=50_000, help="images of the verdicts [50000]")
    parser.add_argument("--images", type=int, default=5_000_000, help="images of the proxy set [5000000]")
    parser.add_argument("--arms", type=int, default=200, help="arms of the report [200]")
    given = parser.parse_args()
    where = device()
    if given.step:
        part, step, folder, size = given.step
        print(json.dumps(STEPS[part][int(step)](Path(folder), int(size))))
        return
    rows: list[dict[str, object]] = []
    for part, whole in (("verdicts", given.verdicts), ("proxies", given.images), ("report", given.arms)):
        for size in (whole // 4, whole // 2, whole):
            with tempfile.TemporaryDirectory() as folder:
                for number, step in enumerate(STEPS[part]):
                    if found := in_a_process(part, number, Path(folder), size):
                        rows.append({"what": f"{part}: {step.__name__}", "size": size, **found})
                        print(rows[-1], flush=True)
    record("scale", where, rows)


if __name__ == "__main__":
    main()
