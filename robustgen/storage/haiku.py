"""The JAX form of DeepMind's WideResNets: a `.npy` file of Haiku parameters and state, under our parameter names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustgen.storage.files import first_line
from robustgen.storage.safe_pickle import load_object_array

_AVERAGES = {"mean_ema": "running_mean", "var_ema": "running_var"}


def read_haiku(path: Path) -> dict[str, Tensor]:
    """Read weights by the parameter names of `WideResNet`, running no code of the file.

    The file holds (parameters, state), two dictionaries of module name -> name -> array:

        convolutions  w (height, width, in, out)    -> weight (out, in, height, width)
        linear        w (in, out), b (out)          -> weight (out, in), bias
        batch norm    scale, offset (1, 1, 1, C)    -> weight, bias (C)
        its state     mean_ema, var_ema: average    -> running_mean, running_var (C)

    Names of modules are `wide_res_net/resnet_lay_1_block_0/conv_0`, or the same with `~` between the parts. In Haiku
    the first block of each group has a shortcut even if channels do not change; ours does not, so networks of width 1
    do not fit.

    Raises:
        ValueError: the file has another layout, or a module that a WideResNet does not have.

    Source: google-deepmind/deepmind-research, adversarial_robustness/jax (eval.py, model_zoo.py: layout and names).
    """
    content = load_object_array(path)
    try:
        params, state = content
        found = {**_parameters(params), **_state(state)}
        return {name: torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32)) for name, value in found.items()}
    except Exception as error:  # whatever stands in the place of names and arrays
        detail = first_line(error)
        raise ValueError(f"{path} does not hold a Haiku WideResNet: expected parameters and state ({detail})") from None


def _parameters(params: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
    found = {}
    for module, values in params.items():
        name = _our_name(module)
        for key, value in values.items():
            array = np.asarray(value)
            if key == "w":
                found[f"{name}.weight"] = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
            elif key in ("b", "scale", "offset"):
                found[f"{name}.{'weight' if key == 'scale' else 'bias'}"] = array.reshape(-1)
            else:
                raise ValueError(f"{module} has a parameter {key!r}")
    return found


def _state(state: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
    found = {}
    for module, values in state.items():
        owner, _, average = module.rpartition("/")
        found[f"{_our_name(owner)}.{_AVERAGES[average]}"] = np.asarray(values["average"]).reshape(-1)
    return found


def _our_name(module: str) -> str:
    """`layer.1.block.0.conv_0` for `wide_res_net/~/resnet_lay_1_block_0/~/conv_0`."""
    parts = [part for part in module.split("/") if part != "~"][1:]
    if not parts:
        raise ValueError(f"the module {module!r} has no name inside a network")
    block = re.fullmatch(r"resnet_lay_(\d+)_block_(\d+)", parts[0])
    return ".".join([f"layer.{block[1]}.block.{block[2]}", *parts[1:]] if block else parts)
