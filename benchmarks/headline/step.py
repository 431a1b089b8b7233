"""CIFAR-10 with and without generated images in half an hour of one GPU: one step of it, or as much as time allows.

    python benchmarks/headline/step.py STEP --from FOLDER ... --into FOLDER [--minutes 8.5] [--scale tiny]

data      official files -> pieces that travel                   (here; --data says where the files lie)
check     is everything here that the steps need?
measure   rates of the device                                    choose    from them: networks and counts of images
fit       the EDM          sample    the proxy set, which stays on the machine         train     one --arm
evaluate  attack the test images of both arms                    report    table, JSON and card of the weights
collect   put what came back (--from) into one folder (--into), digests checked

A step goes on from the furthest piece in --keep and --from; repeating a command is resuming. It stops by itself after
--minutes, leaves what it has, and ends with exit code 75. README.md beside this file has the whole run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent, HERE.parent.parent):
    sys.path.insert(0, str(folder))

STEPS = ("data", "check", "measure", "choose", "fit", "sample", "train", "evaluate", "report", "collect")
NEEDED = ("torch", "numpy", "PIL", "safetensors", "yaml", "pydantic", "pydantic_core", "annotated_types",
          "typing_inspection", "typing_extensions")  # fmt: skip
"""What the steps import, no more: torchvision, scikit-learn and the command line's packages are not among it."""


def unpack_wheels(folder: Path) -> None:
    """Make packages that came as wheels importable, before those installed: they were chosen to fit each other."""
    if not folder.is_dir():
        return
    into = Path(tempfile.gettempdir()) / f"headline-wheels-{os.getuid()}"
    for wheel in sorted(folder.glob("*.whl")):
        if not (into / wheel.name).exists():
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(into)
            (into / wheel.name).touch()
    sys.path.insert(0, str(into))


def missing_packages() -> list[str]:
    found = []
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except (ImportError, SystemError):  # the latter where the parts of pydantic do not fit each other
            found.append(name)
    return found


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--from", dest="sources", type=Path, action="append", default=[], metavar="FOLDER")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="where new pieces go      [KEEP]")
    parser.add_argument("--keep", type=Path, default=Path(".headline/keep"), help="on this machine  [%(default)s]")
    parser.add_argument("--minutes", type=float, default=8.5, help="stop after so many       [%(default)s]")
    parser.add_argument("--scale", choices=("full", "tiny"), default="full")
    parser.add_argument("--arm", choices=("generated", "real"), help="of train")
    parser.add_argument("--suite", help="of evaluate and report      [autoattack]")
    parser.add_argument("--data", type=Path, help="official CIFAR-10 files, for the step data")
    parser.add_argument("--set", dest="choices", action="append", default=[], metavar="NAME=VALUE", help="of choose")
    parser.add_argument("--wheels", type=Path, default=Path(".headline/wheels"), help="unpacked first [%(default)s]")
    parser.add_argument("--device", help="[the GPU if there is one]")
    return parser.parse_args(words)


@contextmanager
def clock(seconds: float) -> Iterator[None]:
    """Ask this process to stop after so long, as a scheduler would: by SIGTERM, which every stage heeds."""

    def ask(number: int, frame: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGALRM, ask)
    signal.setitimer(signal.ITIMER_REAL, max(0.01, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def teller(every: float = 10.0) -> Any:
    """A progress that prints a line now and then, for logs."""
    state = {"last": time.monotonic()}

    def tell(done: int, total: int, unit: str, note: str = "") -> None:
        if time.monotonic() - state["last"] > every:
            state["last"] = time.monotonic()
            print(f"  {done} of {total} {unit}{', ' if note else ''}{note}", flush=True)

    return tell


def run(asked: argparse.Namespace, began: float) -> None:
    import torch
    from pieces import collect, write_piece
    from plan import SCALES, choose

    from robustgen.runtime.cpu import configure_cpu
    from robustgen.runtime.preemption import listening
    from robustgen.storage.provenance import environment

    plan = SCALES[asked.scale]
    into = asked.into or asked.keep
    into.mkdir(parents=True, exist_ok=True)
    if asked.step == "collect":
        print(f"collected: {', '.join(collect(asked.sources, into)) or 'nothing that is not there'}")
        return
    device = asked.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu":
        configure_cpu(1)
    # Training passes have one size, for which the library may look for its fastest kernels; attacks have many.
    torch.backends.cudnn.benchmark = asked.step in ("measure", "fit", "sample", "train")
    import packing
    import stages
    from place import Place

    place = Place((*asked.sources, into), into, asked.keep, device, teller())
    scale = {"scale": plan.name}
    choice = place.find("choice", scale)
    if choice is not None and asked.step != "choose":
        plan = plan.chosen(choice.about)
    left = 60 * asked.minutes - (time.monotonic() - began)
    with listening(), clock(left):
        match asked.step:
            case "data":
                if asked.data is None:
                    raise ValueError("say where the official CIFAR-10 files lie: --data FOLDER")
                packing.pack(plan, asked.data, into)
            case "check":
                check(plan, place)
            case "measure":
                from measuring import measure

                packing.unpack(plan, place)
                before = place.find("measure", scale)
                rows = before.about["rows"] if before else []
                libraries = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
                about: dict[str, Any] = {"device": device_name(device), "environment": environment() | libraries}
                about["rows"] = rows

                def put_down() -> None:
                    folders = list(dict.fromkeys((into, asked.keep)))
                    write_piece(folders, "measure", of=scale, progress=len(rows), about=about)

                measure(plan, device, rows, put_down)
            case "choose":
                measured = place.find("measure", scale)
                found = choose(plan, measured.about["rows"] if measured else [])
                found |= {name: value_of(text) for name, _, text in (word.partition("=") for word in asked.choices)}
                plan.chosen(found)
                number = choice.progress + 1 if choice is not None else 1
                place.write("choice", of=scale, progress=number, about=found)
                print("chosen: " + ", ".join(f"{name} {value}" for name, value in found.items()))
            case "fit":
                stages.fit(plan, place)
            case "sample":
                stages.sample(plan, place)
            case "train":
                if asked.arm is None:
                    raise ValueError("say which: --arm generated, or --arm real")
                stages.train(plan, place, asked.arm)
            case "evaluate":
                stages.judge(plan, place, asked.suite)
            case "report":
                from reporting import report

                report(plan, place, asked.suite or plan.suite)


def value_of(text: str) -> Any:
    """A number, a list or a truth value as JSON writes it; any other word is itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def device_name(device: str) -> str:
    import torch

    from robustgen.storage.provenance import environment

    return environment()["processor"] if device == "cpu" else torch.cuda.get_device_name()


def check(plan: Any, place: Any) -> None:
    import packing
    import torch
    from pieces import names_in

    missing = packing.unpack(plan, place)
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, {device_name(place.device)} ({place.device})")
    print(f"pieces: {', '.join(names_in((place.keep, *place.sources))) or 'none'}")
    print(f"images still to be sent: {', '.join(missing) or 'none'}")
    print(f"fit {plan.fit.total_images:,} images, sample {plan.sampling.count:,}, train {plan.trade.architecture} on "
          f"{plan.trade.schedule.total_images:,} an arm, {plan.suite} on chunks of {plan.chunk}")  # fmt: skip


def main(words: list[str] | None = None) -> int:
    began = time.monotonic()
    asked = parsed(words)
    unpack_wheels(asked.wheels)
    missing = missing_packages()
    if missing:
        print(f"missing packages: {' '.join(missing)}; bring them as wheels in {asked.wheels}", file=sys.stderr)
        return 2
    from robustgen.runtime.preemption import Preempted

    try:
        run(asked, began)
    except Preempted as error:
        print(f"{asked.step}: stopped by the clock{error.where}; what is done is kept, repeat the command to go on")
        return int(error.code or 0)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
