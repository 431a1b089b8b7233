"""The steps: each takes pieces, goes on with what is half done, and leaves pieces."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from packing import data_of, mosaic_of, test_images, unpack
from pieces import MOST_BYTES, Piece, Rule, digest_of_json, put_together, rounded, take_apart
from PIL import Image
from place import Clock, Place
from plan import ARMS, Plan
from torch import nn

from robustgen.config.recipe import Arm
from robustgen.config.sampler import SamplerConfig
from robustgen.datasets import load_splits
from robustgen.datasets.cifar import INFO
from robustgen.evaluation.cascade import evaluate
from robustgen.generators import build_generator
from robustgen.images import to_unit
from robustgen.models import build_model
from robustgen.models.saved import load_classifier
from robustgen.modes import channels_last
from robustgen.proxy.sampling import sample_proxies
from robustgen.proxy.store import ProxySet
from robustgen.randomness import rng_for
from robustgen.records.verdicts import Verdicts
from robustgen.runtime.preemption import Preempted
from robustgen.stages import train as training_stage
from robustgen.stages.common import images_in_a_pass, threat_model
from robustgen.storage.files import read_json
from robustgen.storage.weights import assign_weights
from robustgen.training.generator import train_generator

# Half-done training as pieces


FIT_RULES: tuple[Rule, ...] = (
    ("/objects/optimiser network", "/exp_avg", "zeros"),
    ("/objects/model/", "", "/objects/average/"),
    ("/objects/optimiser network", "/exp_avg_sq", "zeros"),
)
"""What is left out first where a state is too large: Adam's mean gradient comes back in ten steps."""
TRAIN_RULES: tuple[Rule, ...] = (
    ("/objects/optimiser", "/momentum_buffer", "zeros"),
    ("/objects/model/", "", "/objects/average/"),
)


def bring_back(place: Place, name: str, folder: Path, of: dict[str, str], rules: Sequence[Rule], about: Any) -> None:
    """Make a piece of the checkpoint in `folder`, as much of it as a command can bring back."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        print(f"{name}: stopped before the first checkpoint; nothing to bring back")
        return
    content = torch.load(path, map_location="cpu", weights_only=True)
    step = content["place"]["step"]
    said, tensors, left_out = take_apart(content, rules, MOST_BYTES)
    about = {**about, "step": step, "left_out": left_out, "checkpoint": said}
    size = place.write(name, of=of, progress=step, about=about, tensors=tensors)
    without = f" without {'; '.join(left_out)}" if left_out else ""
    print(f"{name}: step {step}, {size / 2**20:.1f} MiB{without}")


def take_up(place: Place, name: str, folder: Path, of: dict[str, str]) -> float:
    """Put the checkpoint of a piece into `folder`, unless the one there is exact; returns the seconds spent so far."""
    if (folder / "checkpoint.pt").exists():
        return 0.0
    piece = place.find(name, of)
    if piece is None:
        return 0.0
    content = put_together(piece.about["checkpoint"], piece.tensors())
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / "checkpoint.part"
    torch.save(content, aside)
    aside.replace(folder / "checkpoint.pt")
    print(f"{name}: goes on from step {piece.about['step']} of {piece.folder}")
    return float(piece.about["seconds"])


# Steps


def fit(plan: Plan, place: Place) -> None:
    """Train the EDM; its averaged weights, in bfloat16, are the piece `generator`."""
    of = plan.of_fit
    if (done := place.find("generator", of)) is not None:
        print(f"generator: done, {done.about['images']} images in {done.about['seconds']} s")
        return
    images = load_splits(data_of(plan, place)).train
    folder = place.work / f"fit-{digest_of_json(of)}"
    clock = Clock(folder, take_up(place, "fit", folder, of))
    model: Any = build_generator(plan.fit, images.info, rng_for(plan.seed, "initialise generator"))
    channels_last(model).to(place.device)
    if plan.compiled:
        model.network.compile()  # in place: names and checkpoints stay those of the network
    about = {"settings": plan.fit.to_json(), "images": plan.fit.total_images, "parameters": _parameters(model)}
    try:
        fitted = train_generator(
            model, images, plan.fit, folder, seed=plan.seed, device=place.device, progress=place.progress
        )
    except Preempted:
        bring_back(place, "fit", folder, of, FIT_RULES, {**about, "seconds": clock.read()})
        raise
    weights = {name: rounded(tensor) for name, tensor in fitted.state_dict().items()}
    seconds = clock.read()
    about |= {"seconds": seconds, "images/s": round(plan.fit.total_images / seconds, 1), **_memory(place.device)}
    place.write("generator", of=of, about=about, tensors=weights)
    for grid in sorted((folder / "grids").glob("*.png"))[-1:]:
        shutil.copy(grid, place.into / "generator.png")
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    print(f"generator: {about['images']} images in {seconds} s, {about['images/s']} a second")


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _memory(device: str) -> dict[str, float]:
    return {} if device == "cpu" else {"peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)}


def sample(plan: Plan, place: Place) -> ProxySet:
    """Draw the proxy set. It stays on this machine: what comes back are counts, digests and a few images.

    Labels are the classes that were asked for. A fresh machine draws it again, from the generator and the seed.
    """
    piece = place.needed("generator", "fit")
    of = {"generator": piece.sha256, "sampling": plan.of_train("generated", "")["sampling"]}
    folder = place.work / f"proxies-{digest_of_json(of)}"
    if (folder / "manifest.json").exists() and ProxySet(folder).has("label"):
        return ProxySet(folder)
    clock = Clock(place.work / f"{folder.name}-time")
    model: Any = build_generator(plan.fit, INFO, rng_for(0))
    _give_weights(model, piece)
    channels_last(model).to(place.device).eval()
    drawn_by = model.configure_sampler(
        SamplerConfig(solver=plan.sampling.solver, evaluations=plan.sampling.evaluations)
    )
    if plan.compiled:
        model.network.compile(dynamic=False)
    try:
        with torch.autocast(place.device, torch.bfloat16, enabled=plan.fit.precision == "bfloat16"):
            proxies = sample_proxies(
                model,
                plan.sampling.count,
                folder,
                classes=INFO.classes,
                seed=plan.seed,
                batch_size=images_in_a_pass(INFO.shape, place.device),
                shard_images=plan.sampling.shard_images,
                made_by={"weights": piece.sha256, "precision": plan.fit.precision, **drawn_by},
                device=place.device,
                progress=place.progress,
            )
    finally:
        seconds = clock.read()
    proxies.add_columns({"what": "the class asked of the generator"}, label=proxies.column("condition").copy())
    counts = proxies.counts().tolist()
    about = {
        "images": len(proxies),
        "labels": counts,
        "sha256": sha_of(proxies),
        "drawn": drawn_by,
        "seconds": seconds,
        "images/s": round(len(proxies) / seconds, 1),
    }
    before = place.find("proxies", of)
    if before is None:
        shown = proxies.block(0, min(len(proxies), 500))
        place.write("proxies", of=of, about=about, tensors={"images": torch.from_numpy(shown)})
        Image.open(io.BytesIO(mosaic_of(shown))).save(place.into / "proxies.png")
    elif before.about["sha256"] != about["sha256"]:
        print("proxies: drawn again, not to the last bit: another device or library sums in another order")
    print(f"proxies: {len(proxies)} images in {seconds} s, {min(counts)} to {max(counts)} a class")
    return proxies


def sha_of(proxies: ProxySet) -> str:
    """One digest of all shards."""
    return hashlib.sha256("".join(shard["sha256"] for shard in proxies.manifest["shards"]).encode()).hexdigest()


def _give_weights(model: nn.Module, piece: Piece) -> None:
    wanted = model.state_dict()
    found = {
        name: tensor.to(wanted[name].dtype) if name in wanted else tensor for name, tensor in piece.tensors().items()
    }
    assign_weights(model, found, piece.folder)


def train(plan: Plan, place: Place, arm: str) -> None:
    """Train one robust classifier; its chosen weights, in bfloat16, are the piece `classifier-ARM`."""
    name = f"classifier-{arm}"
    generator = place.needed("generator", "fit").sha256 if arm == "generated" else None
    of = plan.of_train(arm, generator)
    if (done := place.find(name, of)) is not None:
        print(f"{name}: done, {done.about['images']} images in {done.about['seconds']} s")
        return
    data = data_of(plan, place)
    proxies = sample(plan, place) if arm == "generated" else None
    folder = place.work / f"{arm}-{digest_of_json(of)}"
    clock = Clock(folder, take_up(place, f"train-{arm}", folder, of))
    about: dict[str, Any] = {"settings": plan.trade.to_json(), "images": plan.trade.schedule.total_images}
    if proxies is not None:
        about["proxies"] = sha_of(proxies)
    sources = Arm(proxy=None if proxies is None else str(proxies.folder))
    try:
        if not (folder / "model.json").exists():
            training_stage.train(
                plan.trade, data, plan.threat, sources, folder, plan.seed, place.device, place.progress
            )
    except Preempted:
        bring_back(place, f"train-{arm}", folder, of, TRAIN_RULES, {**about, "seconds": clock.read()})
        raise
    model = load_classifier(folder)
    said, seconds = read_json(folder / "model.json"), clock.read()
    about |= {
        "seconds": seconds,
        "images/s": round(about["images"] / seconds, 1),
        "parameters": _parameters(model),
        "validation": said["validation"],
        "step": said["step"],
        **_memory(place.device),
    }
    weights = {key: rounded(tensor) for key, tensor in model.state_dict().items()}
    place.write(name, of=of, about=about, tensors=weights)
    print(f"{name}: {about['images']} images in {seconds} s, {about['images/s']} a second")


def judge(plan: Plan, place: Place, suite: str | None = None) -> None:
    """Attack the test images, a chunk at a time, the arms in turn; all verdicts so far are the piece `verdicts`."""
    suite = suite or plan.suite
    classifiers = {arm: place.needed(f"classifier-{arm}", f"train --arm {arm}") for arm in ARMS}
    of = {arm: piece.sha256 for arm, piece in classifiers.items()} | {"suite": suite}
    folder, name = place.work / f"verdicts-{digest_of_json(of)}", f"verdicts-{suite}"
    missing = unpack(plan, place)
    if "data-test" in missing:
        raise ValueError("data-test never came to this machine; send it, and name its folder with --from")
    before = place.find(name, of)
    if before is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for file, tensor in before.tensors().items():
            if not (folder / file).exists():
                (folder / file).write_bytes(tensor.numpy().tobytes())
    clock = Clock(folder, before.about["seconds"] if before is not None else 0.0)
    test = test_images(place)
    models = {}
    for arm, piece in classifiers.items():
        model = build_model(piece.about["settings"]["architecture"], test.info)
        _give_weights(model, piece)
        models[arm] = channels_last(model).to(place.device).eval()
    try:
        for first in range(0, len(test), plan.chunk):
            some = test.take(np.arange(first, min(first + plan.chunk, len(test))))
            for arm, model in models.items():
                evaluate(
                    model,
                    to_unit(some.pixels(place.device)),
                    some.targets(place.device),
                    threat_model(plan.threat),
                    suite,
                    seed=plan.seed,
                    batch_size=plan.chunk,
                    path=folder / f"{arm}.{first:05d}.npz",
                    progress=place.progress,
                )
            judged = min(first + plan.chunk, len(test))
            print(f"{name}: {judged} of {len(test)} test images judged")
    finally:
        files = {
            file.name: torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8)
            for file in (*sorted(folder.glob("*.*.npz")), *sorted(folder.glob("*.times.json")))
        }
        faced = sum(int(Verdicts.load(file).faced.sum()) for file in folder.glob("*.*.npz"))
        if files:
            about = {"seconds": clock.read(), "chunk": plan.chunk, "suite": suite, "threat": str(plan.threat)}
            about["tf32 convolutions"] = place.device != "cpu" and torch.backends.cudnn.allow_tf32
            place.write(name, of=of, progress=faced, about=about, tensors=files)


def outcomes(piece: Piece, work: Path) -> dict[str, dict[str, np.ndarray]]:
    """(N,) bool of each arm, `clean` and `robust`, over the chunks that all arms have finished, in order.

    Raises:
        ValueError: there are none.
    """
    work.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Verdicts]] = {arm: {} for arm in ARMS}
    for file, tensor in piece.tensors().items():
        if file.endswith(".npz"):
            (work / file).write_bytes(tensor.numpy().tobytes())
            arm, start, _ = file.split(".")
            verdicts = Verdicts.load(work / file)
            if verdicts.finished:
                found[arm][start] = verdicts
    both = sorted(set.intersection(*(set(chunks) for chunks in found.values())))
    if not both:
        raise ValueError("no chunk of test images is judged for both arms yet; run evaluate again")
    return {
        arm: {
            "clean": np.concatenate([chunks[start].right for start in both]),
            "robust": np.concatenate([chunks[start].robust for start in both]),
        }
        for arm, chunks in found.items()
    }
