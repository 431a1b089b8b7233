"""Published classifiers: the catalog, their files in every published layout, and `hub:` on the command line."""

import pickle
import re
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robustgen.images import DatasetInfo
from robustgen.models import build_model, catalog, hub
from robustgen.models.catalog import ABSENT, RELEASE_INFOS, RELEASES, Release
from robustgen.models.external import load_external
from robustgen.randomness import rng_for
from robustgen.records.verdicts import Verdicts
from robustgen.storage.haiku import read_haiku
from robustgen.storage.weights import assign_weights
from robustgen.threat import ThreatModel

CIFAR = RELEASE_INFOS["cifar10"]
IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def network(name="wrn-10-2", info=CIFAR):
    """With logits and statistics that differ from image to image."""
    model = build_model(name, info, rng_for(0))
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.2, generator=generator)
            nn.init.normal_(module.bias, 0, 0.2, generator=generator)
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
    return model.eval()


@cache
def logits_shape(architecture, data, padding):
    """Of two images, computed without any numbers; None for a network that is not there yet."""
    release = Release(architecture, data, "", "", 0, 0, (), padding)
    with torch.device("meta"):
        try:
            model = hub.build(release)
        except ValueError as error:
            if "unknown architecture" in str(error):
                return None
            raise
    return model(torch.empty(2, *RELEASE_INFOS[data].shape, device="meta")).shape


@pytest.mark.parametrize("full", RELEASES)
def test_every_release_builds_and_says_where_its_weights_are(full):
    release = RELEASES[full]
    data, norm, _ = full.split("/")
    assert RELEASE_INFOS[release.data].name == data and release.threat.startswith(f"{norm}:")
    assert 0 <= release.robust < release.clean < 100 and release.files
    assert (release.robust == 0) == (full.split("/")[2] == "Standard")
    assert re.fullmatch(r"\d{4}\.\d{4,5}|https://\S+", release.paper)
    assert 0 < ThreatModel.parse(release.threat).eps < 1
    assert all(file.url.startswith("https://") or not file.url for file in release.files)
    found = logits_shape(release.architecture, release.data, release.padding)
    assert found == (2, len(RELEASE_INFOS[release.data].classes))


def test_the_catalog_has_what_the_papers_released():
    def count(start, **wanted):
        found = [full for full, release in RELEASES.items() if full.split("/")[2].startswith(start)]
        return len([full for full in found if all(getattr(RELEASES[full], k) == v for k, v in wanted.items())])

    assert count("Gowal2020") == 9 and count("Rebuffi2021") == 22 and count("Gowal2021") == 3
    assert count("Sehwag2021") == 6 and count("Wang2023") == 8 and count("Bartoldson2024") == 2
    assert count("Cui2023") == 5 and count("Peng2023") == 1
    assert count("Rade2021Helper") == 6 and count("Standard") == 2
    assert count("Rebuffi2021", architecture="preact-resnet-18") == 3
    assert sum(len(release.files) == 2 for release in RELEASES.values()) == 25  # PyTorch and JAX
    names = [file.name for release in RELEASES.values() for file in release.files]
    assert len(names) == len(set(names))
    assert len(RELEASES) == 131


def test_what_cannot_be_opened_is_not_in_the_catalog_and_has_a_reason():
    assert len(ABSENT) == 17 and not ABSENT.keys() & RELEASES.keys()
    for full, reason in ABSENT.items():
        data, norm, name = full.split("/")
        assert data in RELEASE_INFOS and norm in ("linf", "l2") and name and reason and reason[-1] != "."
    with pytest.raises(ValueError, match="cifar10/linf/Kang2021Stable cannot be opened: its last layers solve") as said:
        hub.find_release("Kang2021Stable")
    assert "\n" not in str(said.value) and "FILE.py:FUNCTION" in str(said.value)
    with pytest.raises(ValueError, match="hub:cifar100/linf/Bai2024MixedNUTS cannot be opened: it mixes"):
        hub.find_release("cifar100/linf/Bai2024MixedNUTS", RELEASE_INFOS["cifar100"])


def test_absent_models_are_listed_and_refused_in_one_line(robustgen):
    code, out, _ = robustgen("list", "hub")
    assert code == 0 and {line.split()[0] for line in out.splitlines() if line} >= ABSENT.keys() | RELEASES.keys()
    name = "hub:Kang2021Stable"
    for line in (("fetch", name), ("evaluate", name), ("publish", name, "--to", "onnx", "--into", "x")):
        code, _, err = robustgen(*line)
        assert code == 2 and "Kang2021Stable cannot be opened" in err and err.count("\n") == 1
        assert "data sets and feature networks" not in err


@pytest.mark.parametrize(
    ("full", "number"),
    [
        ("cifar10/linf/Xu2023Exploring_WRN-28-10", "1k1uJI13ft0h0dfzuEihVpBvjBXwFRH2o"),
        ("cifar10/linf/Bartoldson2024Adversarial_WRN-82-8", "1--jl8qJh624SFqFffvg1IkYR-fZGA2Sr"),
        ("cifar10/linf/Bartoldson2024Adversarial_WRN-94-16", "1g6o9H1b6vjoBi1USdCBt64C8B8LPiioX"),
        ("cifar100/linf/Cui2023Decoupled_WRN-28-10", "15BwWdWbNfoarTEWWugicOVkTjh3nXH36"),
    ],
)
def test_files_that_were_moved_are_fetched_from_where_robustbench_has_them(full, number):
    assert f"id={number}&" in RELEASES[full].files[0].url


def test_names_are_found_in_full_and_short():
    assert (
        hub.find_release("Rebuffi2021Fixing_70_16_cutmix_ddpm")[0] == "cifar10/linf/Rebuffi2021Fixing_70_16_cutmix_ddpm"
    )
    assert hub.find_release("l2/Rebuffi2021Fixing_70_16_cutmix_ddpm")[0].startswith("cifar10/l2/")
    name = "Rebuffi2021Fixing_70_16_cutmix_ddpm"
    assert hub.find_release(name, RELEASE_INFOS["cifar100"])[0] == f"cifar100/linf/{name}"
    assert hub.find_release(f"cifar10/l2/{name}", CIFAR)[1].threat == "l2:128/255"
    own = DatasetInfo("npz", CIFAR.classes, CIFAR.shape, (0.1, 0.1, 0.1), (0.2, 0.2, 0.2))
    assert hub.find_release(name, own)[0] == f"cifar10/linf/{name}"
    assert (
        hub.find_release("Wang2023Better_WRN-28-10", RELEASE_INFOS["svhn"])[0] == "svhn/linf/Wang2023Better_WRN-28-10"
    )
    with pytest.raises(ValueError, match=r"'Wang2024'; known: .*Wang2023.* \(see: robustgen list hub\)"):
        hub.find_release("Wang2024")
    digits = DatasetInfo("digits", CIFAR.classes, (1, 8, 8), (0.3,), (0.4,))
    with pytest.raises(ValueError, match=r"is for cifar10, images \(3, 32, 32\) .*digits has \(1, 8, 8\)"):
        hub.find_release(name, digits)
    with pytest.raises(ValueError, match="no published model is called '70_16_cutmix_ddpm'"):
        hub.find_release("70_16_cutmix_ddpm")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A published model small enough to write, and the folder of weights."""
    from robustgen.storage.downloads import Download

    monkeypatch.setenv("ROBUSTGEN_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    files = (
        Download("https://example.org/small.pt", "small.pt"),
        Download("https://example.org/small.npy", "small.npy"),
    )
    release = Release("wrn-10-2", "cifar10", "linf:8/255", "2103.01946", 80.0, 50.0, files)
    monkeypatch.setitem(catalog.RELEASES, "cifar10/linf/Small2026", release)
    return tmp_path / "weights"


def layouts():
    state = network().state_dict()
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    wang = {f"module.0.{name}": value for name, value in state.items()}
    raw = {name: torch.zeros_like(value) for name, value in wang.items()}
    return {
        "DeepMind's": state,
        "from before torch 0.4.1": old,
        "Wang's": {"model_state_dict": wang, "unaveraged_model_state_dict": raw, "epoch": 400},
        "Sehwag's": {
            "epoch": 1,
            "arch": "x",
            "state_dict": {f"module.{n}": v for n, v in state.items()},
            "best_prec1": 0.5,
        },
        "RobustBench's older": {"state_dict": {f"model.{name}": value for name, value in state.items()}},
        "Andriushchenko's": {"last": state, "best": raw},
        "with the constants that RobustBench's classes keep": {
            "state_dict": {
                **{f"module.model.{n}": v for n, v in state.items()},
                "module.normalize.mean": torch.tensor(CIFAR.mean).view(1, 3, 1, 1),
                "module.normalize.std": torch.tensor(CIFAR.std).view(1, 3, 1, 1),
            }
        },
        "compiled": {f"_orig_mod.module.{name}": value for name, value in state.items()},
    }


@pytest.mark.parametrize("layout", layouts())
def test_weights_load_from_every_published_layout(layout, small):
    torch.save(layouts()[layout], small / "small.pt")
    model = load_external("hub:Small2026", CIFAR).eval()
    torch.testing.assert_close(model(IMAGES), network()(IMAGES), rtol=0, atol=0)


def test_a_file_that_normalizes_otherwise_is_refused(small):
    state = network().state_dict()
    torch.save({**state, "mu": torch.tensor(CIFAR.mean), "sigma": torch.tensor(CIFAR.std)}, small / "small.pt")
    assert load_external("hub:Small2026", CIFAR)
    for constants in (torch.full((3,), 0.5), torch.ones(1)):
        torch.save({**state, "mu": constants}, small / "small.pt")
        with pytest.raises(
            ValueError, match=r"small\.pt normalizes with mu \[.*the catalog with \[0\.49.*published file"
        ):
            load_external("hub:Small2026", CIFAR)


def test_the_second_first_group_of_trades_files_is_left_out(tmp_path):
    release = RELEASES["cifar10/linf/Zhang2019Theoretically"]
    small = replace(release, architecture="trades-wrn-10-1")
    own = network("trades-wrn-10-1", RELEASE_INFOS[release.data])
    doubled = {name.replace("block1.", "sub_block1."): value for name, value in own.state_dict().items()}
    torch.save({**own.state_dict(), **doubled}, tmp_path / "w.pt")
    torch.testing.assert_close(hub.open_release(small, tmp_path / "w.pt").eval()(IMAGES), own(IMAGES))
    with pytest.raises(ValueError, match=r"unknown: sub_block1\.layer\.0\.bn1\.bias"):
        hub.open_release(replace(small, unused=()), tmp_path / "w.pt")


def test_prefixes_that_are_the_networks_own_stay_on(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2))
    torch.save({name: torch.ones_like(value) for name, value in model.state_dict().items()}, tmp_path / "x.pt")
    from robustgen.storage.weights import load_weights

    assert (load_weights(model, tmp_path / "x.pt")[0].weight == 1).all()


def test_weights_the_network_never_uses_are_named_not_guessed(tmp_path):
    model = nn.Linear(2, 2)
    extra = {**model.state_dict(), "sub_block1.weight": torch.zeros(3)}
    assign_weights(model, dict(extra), tmp_path / "x", unused=("sub_block1.",))
    with pytest.raises(ValueError, match=r"unknown: sub_block1\.weight$"):
        assign_weights(model, dict(extra), tmp_path / "x")


def test_a_wrong_checkpoint_lists_what_differs(small):
    other = network("wrn-16-2").state_dict()
    other["logits.weight"], other["logits.bias"] = torch.zeros(100, 128), torch.zeros(100)
    torch.save(other, small / "small.pt")
    with pytest.raises(ValueError) as caught:
        load_external("hub:Small2026", CIFAR)
    said = str(caught.value)
    assert "small.pt does not fit this WideResNet" in said and "\n" not in said
    assert "unknown: layer.0.block.1.batchnorm_0.bias" in said and "more" in said
    assert (
        "other shapes: logits.bias is (100,), expected (10,), logits.weight is (100, 128), expected (10, 128)" in said
    )
    for content in (b"", b"junk", pickle.dumps({"x": print})):
        (small / "small.pt").write_bytes(content)
        with pytest.raises(ValueError, match=r"small\.pt is damaged"):
            load_external("hub:Small2026", CIFAR)


def test_weights_are_looked_for_in_the_usual_places(small, tmp_path):
    with pytest.raises(ValueError) as caught:
        load_external("hub:Small2026", CIFAR)
    said = str(caught.value)
    assert "hub:cifar10/linf/Small2026 needs its weights: get them from https://example.org/small.pt" in said
    assert f"put them at {small / 'small.pt'}, or give the file with --weights FILE" in said and "\n" not in said
    state = network().state_dict()
    for place in ("Small2026.pt", "cifar10/Linf/Small2026.pt", "small.pt"):
        (small / place).parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, small / place)
        assert load_external("hub:Small2026", CIFAR)
        (small / place).unlink()
    save_file(state, tmp_path / "mine.safetensors")
    assert load_external("hub:Small2026", CIFAR, tmp_path / "mine.safetensors")
    with pytest.raises(ValueError, match=r"the architecture of hub:.* is known"):
        load_external("hub:Small2026", CIFAR, architecture="wrn-28-10")


class FlatMapping(dict):
    """Haiku's mapping, as its pickles name it."""

    __module__ = "haiku._src.data_structures"

    def __reduce__(self):
        return FlatMapping, (dict(self),)


def to_haiku(model, separator="/~/", mapping=dict):
    """The parameters and state of our network as DeepMind's JAX code keeps them."""
    params, state = {}, {}
    for name, value in model.state_dict().items():
        module, _, key = name.rpartition(".")
        parts = module.split(".")
        if parts[0] == "layer":
            parts = [f"resnet_lay_{parts[1]}_block_{parts[3]}", *parts[4:]]
        full = separator.join(["wide_res_net", *parts])
        array = value.numpy()
        norm = "batchnorm" in parts[-1]
        if key in ("running_mean", "running_var"):
            average = "mean_ema" if key == "running_mean" else "var_ema"
            array = array.reshape(1, 1, 1, -1)
            state[f"{full}{separator}{average}"] = mapping(
                counter=np.array(100, np.int32), hidden=array * 0.9, average=array
            )
        elif key == "weight" and norm:
            params.setdefault(full, {})["scale"] = array.reshape(1, 1, 1, -1)
        elif key == "bias" and norm:
            params.setdefault(full, {})["offset"] = array.reshape(1, 1, 1, -1)
        elif key == "weight":
            params.setdefault(full, {})["w"] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        elif key == "bias":
            params.setdefault(full, {})["b"] = array
    return mapping({name: mapping(values) for name, values in params.items()}), mapping(state)


def same_convolution(x, w, stride):
    """TensorFlow's "SAME" convolution, images NHWC, kernels HWIO: what Haiku's Conv2D computes."""
    height, size = x.shape[1], w.shape[0]
    out = -(-height // stride)
    pad = max((out - 1) * stride + size - height, 0)
    x = np.pad(x, ((0, 0), (pad // 2, pad - pad // 2), (pad // 2, pad - pad // 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("nhwcij,ijco->nhwo", windows, w, optimize=True)


def haiku_forward(params, state, images, blocks, mean, std):
    """DeepMind's JAX WideResNet in evaluation mode, in NumPy, from their file's content alone."""

    def silu(x):
        return x / (1 + np.exp(-x))

    def norm(x, name):
        average = {key: state[f"{name}/~/{key}"]["average"] for key in ("mean_ema", "var_ema")}
        scaled = (x - average["mean_ema"]) / np.sqrt(average["var_ema"] + 1e-5)
        return scaled * params[name]["scale"] + params[name]["offset"]

    x = same_convolution((images - mean) / std, params["wide_res_net/~/init_conv"]["w"], 1)
    for group in range(3):
        for block in range(blocks):
            base = f"wide_res_net/~/resnet_lay_{group}_block_{block}/~"
            stride = 2 if group and not block else 1
            active = silu(norm(x, f"{base}/batchnorm_0"))
            shortcut = f"{base}/shortcut"
            rest = same_convolution(active, params[shortcut]["w"], stride) if shortcut in params else x
            x = same_convolution(active, params[f"{base}/conv_0"]["w"], stride)
            x = rest + same_convolution(silu(norm(x, f"{base}/batchnorm_1")), params[f"{base}/conv_1"]["w"], 1)
    x = silu(norm(x, "wide_res_net/~/batchnorm")).mean((1, 2))
    return x @ params["wide_res_net/~/logits"]["w"] + params["wide_res_net/~/logits"]["b"]


def save_pair(path, pair):
    """As `np.save(path, (params, state))` does."""
    array = np.empty(2, dtype=object)
    array[:] = pair
    np.save(path, array, allow_pickle=True)


@pytest.mark.parametrize("name", ["wrn-10-2", "wrn-16-2"])
def test_jax_weights_give_the_logits_that_jax_would(name, tmp_path):
    model = network(name)
    params, state = to_haiku(model)
    save_pair(tmp_path / "w.npy", (params, state))
    loaded = assign_weights(build_model(name, CIFAR), read_haiku(tmp_path / "w.npy"), tmp_path / "w.npy").eval()
    blocks = len(model.layer[0].block)
    expected = haiku_forward(
        params, state, IMAGES.permute(0, 2, 3, 1).numpy(), blocks, np.float32(CIFAR.mean), np.float32(CIFAR.std)
    )
    with torch.no_grad():
        found = loaded(IMAGES)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_jax_weights_load_by_name_in_every_form(small, monkeypatch):
    import types

    module = types.ModuleType("haiku._src.data_structures")
    module.FlatMapping = FlatMapping
    for name in ("haiku", "haiku._src"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for separator, mapping in (("/~/", dict), ("/", dict), ("/~/", FlatMapping)):
        save_pair(small / "small.npy", to_haiku(network(), separator, mapping))
        if mapping is FlatMapping:
            assert b"data_structures" in (small / "small.npy").read_bytes()
        with torch.no_grad():
            torch.testing.assert_close(load_external("hub:Small2026", CIFAR).eval()(IMAGES), network()(IMAGES))
    assert load_external(str(small / "small.npy"), CIFAR, architecture="wrn-10-2")


def test_jax_files_run_no_code_and_must_fit(small, capsys):
    class Malicious:
        def __reduce__(self):
            return (print, ("this ran",))

    file = small / "small.npy"
    params, state = to_haiku(network())
    wide, _ = to_haiku(network("wrn-10-1"))
    cases = [
        (({"a": Malicious()}, {}), r"builtins\.print"),
        ((params, {}), r"missing: batchnorm\.running_mean"),
        (({**params, "wide_res_net/~/more": {"w": np.zeros((2, 2))}}, state), r"unknown: more\.weight"),
        ((wide, state), "other shapes"),
        (({"wide_res_net": {"w": 1}}, state), "has no name inside a network"),
        (({"a/b": {"q": 1}}, state), "has a parameter 'q'"),
        ((params, {"wide_res_net/x/other": {"average": 1}}), "other"),
        (([1], 2), "does not hold a Haiku WideResNet"),
    ]
    for pair, message in cases:
        save_pair(file, pair)
        with pytest.raises(ValueError, match=message) as caught:
            load_external("hub:Small2026", CIFAR)
        assert "\n" not in str(caught.value)
    save_pair(file, (params, state))
    whole = file.read_bytes()
    for content, message in (
        (b"", "is not an .npy file"),
        (b"junk", "is not an .npy file"),
        (whole[:200], "cannot be read as a pickle of plain arrays"),
        (whole[:-100], "cannot be read as a pickle of plain arrays"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_haiku(file)
    np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match="holds one array of float64, expected Python objects"):
        read_haiku(file)
    assert "this ran" not in capsys.readouterr().out


def test_the_mnist_network_pads_before_it_normalises(monkeypatch, tmp_path):
    full = "mnist/linf/Gowal2020Uncovering_28_10"
    release = replace(RELEASES[full], architecture="wrn-10-2")
    inner = network("wrn-10-2", RELEASE_INFOS["mnist"])
    torch.save(inner.state_dict(), tmp_path / "w.pt")
    images = torch.rand(2, 1, 28, 28)
    padded = torch.zeros(2, 1, 32, 32)
    padded[:, :, 2:-2, 2:-2] = images
    with torch.no_grad():
        torch.testing.assert_close(hub.open_release(release, tmp_path / "w.pt").eval()(images), inner(padded))


def test_a_published_model_is_evaluated_by_name(small, robustgen, tmp_path):
    torch.save(network().state_dict(), tmp_path / "mine.pt")
    with torch.no_grad():
        labels = network()(IMAGES).argmax(1)
    pixels = (IMAGES * 255).round().byte().permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "x.npz", image=np.repeat(pixels, 4, 0), label=np.append(np.repeat(labels.numpy(), 4)[:11], 9))
    line = ["evaluate", "hub:Small2026", "--data", "npz=x.npz", "--threat", "linf:2/255", "--suite", "quick"]
    code, _, err = robustgen(*line)
    assert code == 2 and "needs its weights" in err and err.count("\n") == 1
    code, out, err = robustgen(*line, "--weights", "mine.pt")
    assert code == 0, err
    assert "evaluations/Small2026.quick.npz" in out
    assert len(Verdicts.load(tmp_path / "evaluations/Small2026.quick.npz")) == 12
    code, _, err = robustgen(*line, "--weights", "mine.pt", "--normalise", "data", "--into", "y.npz")
    assert code == 2 and "hub:Small2026 includes normalization" in err
    code, out, err = robustgen("evaluate", "hub:Small2026")  # on what it was trained for, which is not at hand
    assert code == 2 and "no CIFAR-10 in data/cifar10" in err and err.count("\n") == 1
    code, _, err = robustgen("evaluate", "hub:Small2026", "--data", "digits")
    assert code == 2 and "takes RGB images, those of digits have 1 channel" in err and err.count("\n") == 1
    code, _, err = robustgen("certify", "hub:Small2025")
    assert code == 2 and "no published model is called 'Small2025'" in err and err.count("\n") == 1
