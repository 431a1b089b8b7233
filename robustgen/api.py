"""The Python interface: build, load, train and run in one call each. `import robustgen` exports these functions."""

from __future__ import annotations

import copy
import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.contracts import Loss, Progress, silent
from robustgen.images import DatasetInfo, ImageSet, to_bytes
from robustgen.randomness import Rng, rng_for
from robustgen.threat import ThreatModel

if TYPE_CHECKING:
    from robustgen.config.recipe import Recipe
    from robustgen.generators.contracts import Generator
    from robustgen.proxy.store import ProxySet
    from robustgen.report.tables import Results


def _info(
    classes: int, shape: tuple[int, int, int], mean: Sequence[float] | None, std: Sequence[float] | None
) -> DatasetInfo:
    """Facts of a dataset with numbered classes; without mean and std pixels are not normalized."""
    channels = shape[0]
    return DatasetInfo(
        "images",
        tuple(map(str, range(classes))),
        shape,
        tuple(mean) if mean is not None else (0.0,) * channels,
        tuple(std) if std is not None else (1.0,) * channels,
    )


def create_model(
    name: str,
    classes: int = 10,
    shape: tuple[int, int, int] = (3, 32, 32),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    seed: int = 0,
) -> nn.Module:
    """Build an untrained classifier: images (N, C, H, W) in [0, 1] to logits (N, K), normalization inside.

    Args:
        name: an architecture, such as "wrn-28-10" or "preact-resnet-18"; see `list_models`.
        classes: K.
        shape: (C, H, W) of the images.
        mean: per channel, of pixels in [0, 1]; default 0.
        std: per channel; default 1.
        seed: of the initialization.

    Raises:
        ValueError: unknown name, or sizes that the family does not have.
    """
    from robustgen.models import build_model

    return build_model(name, _info(classes, shape, mean, std), rng_for(seed, "initialise"))


def list_models() -> list[str]:
    """Return the usual names of architectures; names with other sizes work too."""
    from robustgen.models import EXAMPLES

    return list(EXAMPLES)


def load_model(
    place: str | Path,
    *,
    architecture: str | None = None,
    weights: str | Path | None = None,
    classes: int = 10,
    shape: tuple[int, int, int] = (3, 32, 32),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    network: nn.Module | None = None,
) -> nn.Module:
    """Load a classifier in evaluation mode, on the CPU, its parameters without gradients.

    Args:
        place: a folder made by `train`, a weights file, a program of torch.export or TorchScript, "hub:NAME",
            "FILE.py:NAME", "PACKAGE.MODULE:NAME", "timm:NAME", or "hf:FOLDER" of publish or of transformers. A network
            that its author wrote in a file is built by running that file, or the copy in the folder.
        architecture: required for a weights file.
        weights: a file to load into the function's or the hub's model.
        classes, shape, mean, std: as in `create_model`; a folder made by `train` holds its own.
        network: for a folder made by `train(..., architecture=network)`, such a network again; it is copied.

    Raises:
        ValueError: nothing found there, or weights that do not fit.
    """
    from robustgen.config.source import Source, place_of
    from robustgen.models.foreign import Adapted
    from robustgen.models.saved import dataset_info, read_model_json
    from robustgen.models.sources import open_classifier
    from robustgen.storage.weights import load_weights

    if network is not None:
        info = dataset_info(read_model_json(Path(place)))
        model = Adapted(copy.deepcopy(network), info.mean, info.std)
        return load_weights(model, Path(place) / "weights.safetensors").eval().requires_grad_(False)
    source = Source(place_of(str(place)), None if weights is None else Path(weights), architecture)
    return open_classifier(source, _info(classes, shape, mean, std))


@dataclass(frozen=True)
class LoadedGenerator:
    """A trained generative model, ready to sample.

    model  in evaluation mode
    about  content of its `generator.json`
    """

    model: Generator
    about: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return self.model.shape

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.model.classes

    @torch.no_grad()
    def sample(self, labels: Tensor, rng: Rng | None = None, *, seed: int = 0) -> Tensor:
        """Draw one image (C, H, W) in [0, 1] per label: (N, C, H, W).

        Args:
            labels: (N,) integers in [0, K), on the model's device.
            rng: one stream per image, or a single stream that is split; default the stream of `seed`.
            seed: with labels 0, 1, ... K - 1, 0, 1, ... the images are the first of `robustgen sample --seed`, before
                they are rounded to bytes.
        """
        rng = rng_for(seed, "sample", device=labels.device) if rng is None else rng
        return self.model.sample(labels, rng if rng.keys.ndim else rng.each(range(len(labels))))


def load_generator(folder: str | Path) -> LoadedGenerator:
    """Load a trained generator: a folder made by `robustgen fit`, or a DDPM in the format of diffusers.

    Raises:
        ValueError: unfinished, damaged, or weights that do not fit.
    """
    from robustgen.generators import read_generator

    return LoadedGenerator(*read_generator(Path(folder)))


def _image_set(images: Tensor, labels: Tensor, classes: int | None) -> ImageSet:
    pixels = to_bytes(images.detach().cpu())
    count = int(labels.max()) + 1 if classes is None else classes
    per_channel = pixels.double().div(255).transpose(0, 1).flatten(1)
    info = _info(
        count,
        (images.shape[1], images.shape[2], images.shape[3]),
        per_channel.mean(1).tolist(),
        per_channel.std(1).clamp_min(1e-3).tolist(),
    )
    return ImageSet(pixels.permute(0, 2, 3, 1).contiguous().numpy(), labels.cpu().numpy().astype(np.int64), info)


def train(
    images: Tensor,
    labels: Tensor,
    *,
    architecture: str | nn.Module = "wrn-28-10",
    threat: ThreatModel | str = "linf:8/255",
    loss: str | Mapping[str, Any] | Loss = "trades",
    steps: int | None = None,
    epochs: float | None = None,
    batch_size: int = 128,
    peak_lr: float = 0.1,
    proxies: ProxySet | None = None,
    classes: int | None = None,
    into: str | Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
    **settings: Any,
) -> nn.Module:
    """Train a classifier, robust unless `loss` is "plain"; return its EMA weights in evaluation mode.

    Args (N images, K classes):
        images: (N, C, H, W) in [0, 1]; they are rounded to 8 bits per channel.
        labels: (N,) integers in [0, K).
        architecture: a name (`list_models`), a reference such as "net.py:make(width=64)", or an untrained network from
            images (N, C, H, W) to logits, which is copied. Normalization is put in front unless `normalize=False`.
        threat: of the inner maximization.
        loss: a name in `losses.LOSSES`, its settings such as `{"kind": "trades", "beta": 5}`, or a loss object.
        steps: optimizer steps.
        epochs: instead of steps, passes over the N images.
        proxies: generated images, which fill the share of each batch that `real_share` leaves (default 0.3).
        classes: K; default the largest label plus 1.
        into: a folder for the result and for checkpoints: an interrupted call with the same arguments resumes. Load the
            result by `load_model(into)`. Default: nothing is kept.
        seed: of initialization, order, augmentation and attacks.
        settings: further fields of `config.training.TrainingConfig`, such as awp=0.005 or augment="crop-flip+cutmix".

    Raises:
        ValueError: invalid settings, or a folder that holds other work.
    """
    if (steps is None) == (epochs is None):
        raise ValueError("expected either steps or epochs")
    steps = steps if steps is not None else math.ceil((epochs or 0) * len(images) / batch_size)
    content = {
        "architecture": architecture if isinstance(architecture, str) else f"object:{type(architecture).__name__}",
        "schedule": {"total_images": steps * batch_size, "batch_size": batch_size, "peak_lr": peak_lr},
        "early_stopping": False,
        **({"loss": loss} if isinstance(loss, str | Mapping) else {}),
        **({} if proxies is not None else {"real_share": 1.0}),
        **settings,
    }
    adversary = ThreatModel.parse(threat) if isinstance(threat, str) else threat
    real = _image_set(images, labels, classes)
    network = None if isinstance(architecture, str) else architecture
    if into is not None:
        return _train(real, proxies, network, content, adversary, loss, Path(into), seed, device, progress)
    with tempfile.TemporaryDirectory() as folder:
        return _train(real, proxies, network, content, adversary, loss, Path(folder), seed, device, progress)


def _train(
    real: ImageSet,
    proxies: ProxySet | None,
    network: nn.Module | None,
    content: dict[str, Any],
    threat: ThreatModel,
    loss: str | Mapping[str, Any] | Loss,
    folder: Path,
    seed: int,
    device: str,
    progress: Progress,
) -> nn.Module:
    from pydantic import ValidationError

    from robustgen.augment import build_augmentation
    from robustgen.config.losses import SmoothedConfig
    from robustgen.config.parsing import explain
    from robustgen.config.training import TrainingConfig
    from robustgen.losses.building import build_loss
    from robustgen.models import build_model
    from robustgen.models.foreign import Adapted
    from robustgen.models.saved import keep_source, save_classifier
    from robustgen.modes import channels_last
    from robustgen.storage.files import differences, read_json, write_json
    from robustgen.storage.weights import weights_digest
    from robustgen.training.classifier import train_classifier
    from robustgen.training.mixing import Mixture

    try:
        settings = TrainingConfig.model_validate(content)
    except ValidationError as error:
        raise ValueError(explain(error)) from None
    request = {
        "train": settings.to_json(),
        "loss": re.sub(r" at 0x[0-9a-f]+", "", repr(loss)),
        "threat": str(threat),
        "seed": seed,
        **({} if network is None else {"network": weights_digest(network)}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "model.json").exists():
        raise ValueError(f"{folder} holds a finished classifier; load it with load_model, or choose another folder")
    if not (folder / "asked.json").exists():
        write_json(folder / "asked.json", request)
    elif found := differences(read_json(folder / "asked.json"), json.loads(json.dumps(request))):
        raise ValueError(f"{folder} holds other work: {'; '.join(found[:4])}; choose another folder, or remove it")
    info = real.info if settings.normalize else real.info.unnormalized()
    if network is None:
        source = keep_source(folder, settings.architecture)
        model = build_model(settings.architecture, info, rng_for(seed, "initialise"), source)
    else:
        model = Adapted(copy.deepcopy(network), info.mean, info.std)
    model = channels_last(model).to(device)
    mixture = Mixture(
        real,
        proxies,
        batch_size=settings.schedule.batch_size,
        real_share=settings.real_share,
        repeats=settings.repeats,
        order=settings.generated_order,
        smoothing=settings.smoothing,
        smooth=settings.smooth,
        augment=build_augmentation(settings.augment),
        seed=seed,
        device=device,
    )
    objective = build_loss(settings) if isinstance(loss, str | Mapping) else loss
    purpose = settings.loss.PURPOSE if isinstance(loss, str | Mapping) else "robust"
    trained = train_classifier(model, mixture, objective, threat, settings, folder, seed=seed, progress=progress)
    save_classifier(
        folder,
        trained.model,
        settings.architecture,
        info,
        threat=str(threat) if purpose == "robust" else None,
        sigma=settings.loss.sigma if isinstance(settings.loss, SmoothedConfig) else None,
        seed=seed,
        step=trained.step,
    )
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return trained.model.eval()


def run(
    recipe: str | Path | Recipe,
    into: str | Path | None = None,
    *,
    jobs: int | None = None,
    device: str = "auto",
    **changes: Any,
) -> Results:
    """Run all stages of a recipe, as `robustgen run` does, and return the results that its report shows.

    Finished stages are skipped and interrupted ones resume. With several `jobs` or GPUs stages run in worker processes:
    call it from a script guarded by `if __name__ == "__main__"`.

    Args:
        recipe: a name (`robustgen list recipes`), a .yaml or .json file, or a Recipe.
        into: the run folder; default runs/RECIPE.
        jobs: stages at a time; default as many as cores, or GPUs.
        device: "auto", "cpu", "cuda" for all GPUs, or "cuda:1".
        changes: settings by name: threat="linf:4/255"; dotted names as `**{"train.loss.beta": 5}`.

    Raises:
        ValueError: unknown recipe or setting, a folder with other settings, or a failed stage.
    """
    from robustgen.config.loading import override, with_defaults
    from robustgen.config.recipe import Recipe
    from robustgen.pipeline import scheduler
    from robustgen.pipeline.devices import find_devices
    from robustgen.pipeline.graph import check_recipe, stages
    from robustgen.pipeline.launchers import check_no_jobs
    from robustgen.recipes import find_recipe
    from robustgen.report.tables import read_results
    from robustgen.runtime.devices import device_named
    from robustgen.storage.files import locked
    from robustgen.storage.run_folder import RunDir

    settings = recipe if isinstance(recipe, Recipe) else find_recipe(str(recipe))
    settings = override(settings, [f"{name}={_as_text(value)}" for name, value in changes.items()])
    if settings.seeds:
        raise ValueError(
            f"{settings.name} is a study of several seeds; pass seeds=[] for one run, or use the command robustgen run"
        )
    device = device_named(device)
    target = RunDir(Path(into) if into is not None else Path("runs") / settings.name.replace("/", "-"))
    plan = stages(settings, target)
    if not target.recipe.exists():
        check_recipe(settings)
    check_no_jobs(target)
    with locked(target.root):
        target.ensure_recipe(settings.to_json(), with_defaults)
        scheduler.run_all(settings, target, plan, device, jobs, find_devices(device, plan))
    return read_results(target)


def _as_text(value: Any) -> str:
    """A value in the form of `--set`."""
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)
