"""Networks that others wrote: found by name, built for a data set, and called as every classifier here is called."""

from __future__ import annotations

import copy
import importlib
import inspect
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustgen.images import DatasetInfo
from robustgen.models.wide_resnet import Normalize
from robustgen.storage.references import Reference, find_code, one_line

COUNTS = ("classes", "num_classes", "n_classes", "num_labels")
"""Arguments that receive the number of classes, where a network's constructor has them."""
SHAPES = ("shape", "image_shape", "input_shape")
"""Those that receive (channels, height, width)."""
SIDES = ("img_size", "image_size", "input_size")
"""Those that receive the height in pixels."""
_CHANNELS = ("in_chans", "in_channels", "num_channels")
"""Those that receive the number of channels."""


def build_network(reference: Reference, info: DatasetInfo, file: Path | None = None) -> nn.Module:
    """The network as its author wrote it, without normalization; its initialization draws from torch's generator.

    A function or class is called with the reference's arguments, and with the number of classes and the shape of the
    images where it has arguments for them (COUNTS, SHAPES, SIDES, _CHANNELS). Naming a network runs its code.

    Args:
        file: a copy of the source file to use in place of the reference's.

    Raises:
        ValueError: nothing there, code that fails, a result that is not a network, or a library that is not installed.
    """
    if reference.where == "object":
        raise ValueError(
            f"this classifier was trained from a {reference.name} that was built in Python; build it again and give it "
            "to robustgen.load_model(folder, network=...)"
        )
    if reference.where == "timm":
        return _from_timm(reference, info)
    if reference.where == "hf":
        return _from_hugging_face(reference, info)
    found = find_code(reference, file)
    if isinstance(found, nn.Module):
        if reference.arguments:
            raise ValueError(f"{reference}: {reference.name} is a network already; leave out the arguments")
        return copy.deepcopy(found)
    try:
        model = found(**{**_facts(found, info), **reference.arguments})
    except Exception as error:  # whatever somebody else's code raises
        raise ValueError(f"{reference} fails: {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{reference} must return an nn.Module, got {type(model).__name__}")
    return model


def find_network(reference: Reference) -> None:
    """Check that a reference names something, without building it.

    Raises:
        ValueError: no such file, module, name or folder, or a library that is not installed.
    """
    if reference.where == "timm":
        if not _library("timm", "timm").is_model(reference.name):
            raise ValueError(f"timm knows no network {reference.name!r}; timm.list_models() lists them")
    elif reference.where == "hf":
        _check_folder(reference)
        _library("transformers", "transformers")
    else:
        find_code(reference)


def _facts(maker: Callable[..., Any], info: DatasetInfo) -> dict[str, Any]:
    """Facts of the data by the names of a constructor's arguments."""
    try:
        names = inspect.signature(maker).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return {}
    channels, side, _ = info.shape
    values = {COUNTS: len(info.classes), SHAPES: info.shape, SIDES: side, _CHANNELS: channels}
    return {name: value for group, value in values.items() for name in group if name in names}


def _from_timm(reference: Reference, info: DatasetInfo) -> nn.Module:
    timm = _library("timm", "timm")
    channels, side, _ = info.shape
    arguments = {"num_classes": len(info.classes), "in_chans": channels, **reference.arguments}
    try:
        try:
            model = timm.create_model(reference.name, img_size=side, **arguments)
        except TypeError:  # networks without position embeddings take images of any size
            model = timm.create_model(reference.name, **arguments)
    except Exception as error:
        raise ValueError(f"{reference} fails: {type(error).__name__}: {one_line(error)}") from error
    assert isinstance(model, nn.Module)
    return model


def _from_hugging_face(reference: Reference, info: DatasetInfo) -> nn.Module:
    _check_folder(reference)
    transformers = _library("transformers", "transformers")
    try:
        model = transformers.AutoModelForImageClassification.from_pretrained(
            reference.name, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        raise ValueError(f"{reference} fails: {type(error).__name__}: {one_line(error)}") from error
    if model.config.num_labels != len(info.classes):
        raise ValueError(f"{reference} has {model.config.num_labels} classes, the images have {len(info.classes)}")
    assert isinstance(model, nn.Module)
    return model


def _check_folder(reference: Reference) -> None:
    """Raise ValueError unless a reference to Hugging Face names a folder on this machine that transformers can open."""
    folder = Path(reference.name)
    if reference.name and (folder / "config.json").is_file():
        return
    found = f"{folder} has no config.json" if reference.name and folder.is_dir() else "there is no such folder"
    raise ValueError(
        f"{reference}: expected hf:FOLDER, a folder on this machine with config.json (of transformers) or model.json "
        f"(of robustgen publish) and weights, but {found}; download OWNER/NAME with: hf download OWNER/NAME "
        "--local-dir FOLDER"
    )


def _library(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{name} is needed for this network: pip install 'robustgen[{extra}]' ({error})") from None


def logits_of(output: object) -> Tensor:
    """The logits in what a network returns: a tensor, the first tensor of a tuple, `["logits"]` or `.logits`.

    Raises:
        TypeError: anything else.
    """
    if isinstance(output, Tensor):
        return output
    found = getattr(output, "logits", None)
    if found is None and isinstance(output, Mapping):
        found = output.get("logits")
    if found is None and isinstance(output, tuple | list):
        found = next((one for one in output if isinstance(one, Tensor)), None)
    if isinstance(found, Tensor):
        return found
    keys = f" with {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
    raise TypeError(
        f"expected logits (N, K) as a tensor, the first tensor of a tuple, ['logits'] or .logits; the network returns "
        f"{type(output).__name__}{keys}"
    )


class Adapted(nn.Module):
    """A network behind normalization, in its own precision, of whose output the logits are taken.

    images (N, C, H, W) in [0, 1] -> (images - mean) / std -> the network's dtype -> logits in the images' dtype
    """

    def __init__(self, network: nn.Module, mean: Sequence[float] | None = None, std: Sequence[float] | None = None):
        super().__init__()
        self.normalize = nn.Identity() if mean is None or std is None else Normalize(mean, std)
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        inputs = self.normalize(images)
        return logits_of(self.network(inputs.to(dtype_of(self.network) or inputs.dtype))).to(images.dtype)

    def train(self, mode: bool = True) -> Adapted:
        """Set the mode, but of exported programs, which have none."""
        self.training = mode
        if has_modes(self.network):
            self.network.train(mode)
        return self


def dtype_of(network: nn.Module) -> torch.dtype | None:
    """The precision of a network's parameters; None where it has none."""
    return next((one.dtype for one in network.parameters() if one.is_floating_point()), None)


def has_modes(model: nn.Module) -> bool:
    """Whether a network can be set to training and evaluation; programs of torch.export cannot."""
    try:
        model.train(model.training)
    except NotImplementedError:
        return False
    return True


def is_scripted(model: nn.Module) -> bool:
    """Whether a network is a TorchScript program, which is used as it is."""
    return isinstance(model, torch.jit.ScriptModule)


def adapted(model: nn.Module, info: DatasetInfo) -> nn.Module:
    """The network itself where it returns logits in float32, else wrapped in `Adapted`.

    A network that does not take images of this shape is left alone: its first use says so.
    """
    if is_scripted(model) or not has_modes(model) or dtype_of(model) not in (torch.float32, None):
        return Adapted(model)
    training = [module for module in model.modules() if module.training]
    try:
        with torch.no_grad():
            plain = isinstance(model.eval()(torch.zeros(2, *info.shape)), Tensor)
    except Exception:  # whatever somebody else's network raises
        plain = True
    for module in training:
        module.training = True
    return model if plain else Adapted(model)


def open_program(path: Path) -> nn.Module | None:
    """The program in a file of torch.export (`.pt2`) or TorchScript; None where the file is neither.

    Programs are lists of tensor operations; opening them runs no Python of the file.

    Raises:
        ValueError: damaged.
    """
    names = set(zipfile.ZipFile(path).namelist()) if zipfile.is_zipfile(path) else set[str]()
    exported = any(name.endswith("models/model.json") for name in names) or path.suffix == ".pt2"
    if not exported and not any(name.endswith("constants.pkl") for name in names):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
            return torch.export.load(path).module() if exported else torch.jit.load(path, map_location="cpu")
    except Exception as error:
        raise ValueError(
            f"{path} is damaged, or is not a program that this torch reads ({one_line(error)[:200]})"
        ) from None
