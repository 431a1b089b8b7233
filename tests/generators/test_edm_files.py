"""NVIDIA's pickles of EDM: opened without their code, and equal to NVIDIA's own networks.

`nvidia-edm.json` has four small networks of NVlabs/edm (commit 008a4e5): names and shapes of their tensors, and what
they returned for the numbers that `drawn` makes. The pickles are written here by stand-ins of NVIDIA's classes.
"""

import io
import json
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from conftest import REPOSITORY
from robustgen.cli.inventory import known
from robustgen.config.generators import EDMConfig, SamplerConfig
from robustgen.config.recipe import DataConfig
from robustgen.generators import load_generator
from robustgen.generators.edm_files import holds_edm, read_edm
from robustgen.generators.published import read_published
from robustgen.generators.unet import UNet
from robustgen.images import to_bytes
from robustgen.randomness import rng_for
from robustgen.stages.fetch import find
from robustgen.stages.import_generator import ImportGenerator
from robustgen.stages.sample import Sample
from robustgen.storage.published_generators import GENERATOR_FILES, find_generator_file
from robustgen.storage.torch_files import Inert, load_objects

RECORDED = json.loads((REPOSITORY / "tests" / "fixtures" / "nvidia-edm.json").read_text())


def drawn(name, shape):
    """Numbers that any machine makes from a name and a shape."""
    values = np.random.default_rng(np.frombuffer(name.encode(), np.uint8)).standard_normal(shape)
    if len(shape) > 1:
        values /= np.sqrt(np.prod(shape[1:]))
    else:
        values = 1 + 0.3 * values if name.endswith("weight") else 0.2 * values
    return torch.from_numpy(values.astype(np.float32))


def filter_of(arguments):
    taps = torch.tensor([float(tap) for tap in arguments.get("resample_filter", [1, 1])])
    return (taps[:, None] * taps)[None, None] / taps.sum() ** 2


class Persistent(nn.Module):
    """An object as torch_utils.persistence pickles it: the source of its module, its class's name, its state."""

    def __init__(self, kind, source="", **state):
        super().__init__()
        self.kind, self.source = kind, source
        self.__dict__.update(state)

    def __reduce__(self):
        state = {name: value for name, value in self.__dict__.items() if name not in ("kind", "source")}
        meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": self.kind, "state": state}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


@pytest.fixture
def nvidia(monkeypatch):
    """Stand-ins of the modules that NVIDIA's pickles refer to, while a pickle is written."""
    persistence, util = types.ModuleType("torch_utils.persistence"), types.ModuleType("dnnlib.util")

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("reading a pickle called it")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    util.EasyDict = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})
    for name, module in (
        ("torch_utils", types.ModuleType("torch_utils")), ("torch_utils.persistence", persistence),
        ("dnnlib", types.ModuleType("dnnlib")), ("dnnlib.util", util),
    ):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    return util.EasyDict


def written(path, layout, easy, *, source="raise SystemExit", changes=None, inner=None, outer="EDMPrecond", **more):
    """A pickle of one of the recorded networks."""
    record = RECORDED[layout]
    given = {**record["arguments"], **(changes or {})}
    kept = {name: given[name] for name in ("img_resolution", "img_channels", "label_dim")}
    root = Persistent(outer, source, sigma_data=0.5, use_fp16=np.float64(0), **kept, _init_kwargs=easy(given))
    arguments = {**record["inner"], **(inner or {})}
    root.model = Persistent(given["model_type"], source, _init_args=(), _init_kwargs=arguments)
    for name, shape in record["tensors"].items():
        *layers, last = name.split(".")
        here = root
        for depth, layer in enumerate(layers):
            if layer not in here._modules:
                new = nn.ModuleDict() if depth == 1 and layer in ("enc", "dec") else Persistent("UNetBlock", source)
                here.add_module(layer, new)
            here = here._modules[layer]
        if last == "resample_filter":
            here.register_buffer(last, filter_of(arguments))
        elif last == "freqs":
            here.register_buffer(last, drawn(name, shape))
        else:
            here.register_parameter(last, nn.Parameter(drawn(name, shape)))
    content = {"ema": root, "loss_fn": Persistent("EDMLoss", source), "augment_pipe": None, **more}
    content["dataset_kwargs"] = easy(path="data/cifar10-32x32.zip", use_labels=True)
    path.write_bytes(pickle.dumps(content))
    return path


@pytest.mark.parametrize("layout", RECORDED)
def test_an_opened_network_denoises_as_nvidias_own(layout, nvidia, tmp_path):
    path = written(tmp_path / "net.pkl", layout, nvidia)
    found = read_published(path)
    assert found.config.network == (layout if layout != "unconditional" else "ddpm++")
    assert found.config.conditional == (layout != "unconditional")
    images = drawn("images", (2, *found.model.shape)) * 8
    with torch.no_grad():
        denoised = found.model.denoise(images, torch.tensor([0.3, 7.0]), torch.tensor([0, 2]))
    wanted = torch.tensor(RECORDED[layout]["output"]).view(images.shape)
    torch.testing.assert_close(denoised, wanted, rtol=0, atol=2e-5)
    assert wanted.std() > 0.3


def test_the_published_cifar10_network_has_the_default_settings(nvidia, tmp_path):
    """As train.py of NVlabs/edm makes it for edm-cifar10-32x32-cond-vp.pkl: 419 tensors, 55,735,299 numbers."""
    arguments = {
        "model_channels": 128, "channel_mult": [2, 2, 2], "dropout": 0.13, "augment_dim": 9, "num_blocks": 4,
        "attn_resolutions": [16],
    }  # fmt: skip
    path = written(
        tmp_path / "net.pkl", "ddpm++", nvidia, inner=arguments,
        changes={"img_resolution": 32, "img_channels": 3, "label_dim": 10},
    )  # fmt: skip
    config, shape, classes, _ = read_edm(load_objects(path), path)
    assert config == EDMConfig() and shape == (3, 32, 32) and classes == 10
    with torch.device("meta"):
        network = UNet(shape, classes, augmented=True)
    sizes = [parameter.numel() for parameter in network.parameters()]
    assert (len(sizes), sum(sizes)) == (419, 55_735_299)


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_nothing_in_such_a_pickle_is_run(nvidia, tmp_path):
    """Neither the source that it carries, nor calls anywhere in it, nor a pickle within the bytes of a storage."""
    done = tmp_path / "done"
    source = f"open({str(done)!r}, 'w')"
    inner = io.BytesIO()
    torch.save(Hostile(exec, source), inner, _use_new_zipfile_serialization=False)
    path = written(
        tmp_path / "net.pkl", "ddpm++", nvidia, source=source,
        first=Hostile(exec, source), second=Hostile(getattr, "text", "upper"), third=Hostile(eval, "1 + 1"),
    )  # fmt: skip
    events, watching = [], True

    def hook(event, arguments):
        if watching and event in ("exec", "compile", "os.system", "subprocess.Popen", "pickle.find_class"):
            events.append((event, arguments))

    sys.addaudithook(hook)
    read_published(path)
    storage = tmp_path / "storage.pkl"
    watching = False
    storage.write_bytes(pickle.dumps({"ema": Hostile(torch.storage._load_from_bytes, inner.getvalue())}))
    watching = True
    with pytest.raises(ValueError, match="cut off, damaged, or a pickle of other things"):
        read_published(storage)
    watching = False
    assert not done.exists()
    assert not [event for event in events if event[0] != "pickle.find_class" or "torch" not in str(event[1])]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outer": "VPPrecond"}, "holds a network in VPPrecond, expected EDMPrecond"),
        ({"inner": {"encoder_type": "skip"}}, "holds a SongUNet with .*encoder_type='skip'.*only those of DDPM"),
        ({"inner": {"augment_dim": 6}}, "augment_dim is 6; only 0 and 9"),
        ({"inner": {"num_blocks": 0}}, "blocks"),
        ({"inner": {"num_blocks": 10**9}}, "149 tensors cannot be those of 1000000000 blocks"),
        ({"inner": {"model_channels": 10**6}}, "does not fit .*other shapes"),
        ({"inner": {"num_blocks": 2}}, "does not fit"),
        ({"changes": {"model_type": "Transformer"}}, "holds a Transformer, expected SongUNet or DhariwalUNet"),
        ({"changes": {"label_dim": 5}}, "does not fit .*class_in"),
    ],
)
def test_another_network_is_one_line(options, message, nvidia, tmp_path):
    path = written(tmp_path / "net.pkl", "ddpm++", nvidia, **options)
    with pytest.raises(ValueError, match=message) as raised:
        read_published(path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


def test_damaged_and_foreign_pickles_are_one_line(nvidia, tmp_path):
    whole = written(tmp_path / "net.pkl", "ddpm++", nvidia).read_bytes()
    for content, message in (
        (whole[: len(whole) // 2], "cut off"),
        (b"", "empty"),
        (b"<html>", "web page"),
        (pickle.dumps({"a": 1}), "holds a dict with a; expected a generator: NVIDIA's EDM"),
        (pickle.dumps([1, 2]), "holds a list; expected a generator"),
    ):
        (tmp_path / "x.pkl").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_published(tmp_path / "x.pkl")
    with pytest.raises(ValueError, match="there is no file"):
        read_published(tmp_path / "none.pkl")


def test_modules_that_contain_themselves_are_one_line(nvidia, tmp_path):
    path = written(tmp_path / "net.pkl", "ddpm++", nvidia)
    content = load_objects(path)
    assert holds_edm(content)
    network = content["ema"].state["_modules"]["model"]
    assert isinstance(network, Inert)
    network.state["_modules"]["enc"].state["_modules"]["again"] = network
    with pytest.raises(ValueError, match="contain themselves"):
        read_edm(content, path)


def test_an_imported_network_is_an_ordinary_generator(nvidia, tmp_path):
    path = written(tmp_path / "net-cifar10.pkl", "ddpm++", nvidia)
    said = ImportGenerator(path, tmp_path / "g")("cpu", lambda *_: None)
    assert "3 classes" in said and "license" in said
    content = json.loads((tmp_path / "g" / "generator.json").read_text())
    assert content["imported"]["layout"] == "NVIDIA's EDM, network ddpm++" and content["classes"] == ["0", "1", "2"]
    Sample(tmp_path / "g", SamplerConfig(evaluations=3), tmp_path / "set", 0, 5)("cpu", lambda *_: None)
    drawn = np.load(tmp_path / "set" / "images-00000.npy")
    model = read_published(path).model
    model.configure_sampler(SamplerConfig(evaluations=3))
    wanted = to_bytes(model.sample_images(torch.arange(5) % 3)).permute(0, 2, 3, 1).numpy()
    assert np.abs(drawn.astype(int) - wanted).max() <= 1


def test_an_unconditional_network_takes_the_classes_of_the_data(nvidia, tmp_path):
    """Its labels are ignored, the manifest says so, and it cannot be guided away from itself."""
    path = written(tmp_path / "net.pkl", "unconditional", nvidia)
    ImportGenerator(path, tmp_path / "g", DataConfig(name="cifar10"))("cpu", lambda *_: None)
    Sample(tmp_path / "g", SamplerConfig(evaluations=3), tmp_path / "set", 0, 12)("cpu", lambda *_: None)
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert len(manifest["classes"]) == 10 and manifest["generator"]["conditional"] is False
    model, _ = load_generator(tmp_path / "g")
    assert model.knows_unlabelled
    streams = rng_for(0).each(range(3))
    images = [model.sample(torch.tensor(labels), streams.at(0)) for labels in ([0, 1, 2], [5, 5, 5])]
    assert torch.equal(*images)
    with pytest.raises(ValueError, match=r"guidance .* changes nothing for an unconditional edm"):
        model.configure_sampler(SamplerConfig(guidance=2.0))


def test_the_command_leaves_nothing_behind_when_it_refuses(nvidia, tmp_path):
    path = written(tmp_path / "net.pkl", "ddpm++", nvidia, outer="VPPrecond")

    def run(*words):
        command = [sys.executable, "-m", "robustgen", "import-generator", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    done = run(path, "--into", tmp_path / "g")
    assert done.returncode == 2 and not (tmp_path / "g").exists()
    assert done.stderr.startswith(f"robustgen: {path} holds a network in VPPrecond") and done.stderr.count("\n") == 1
    path = written(tmp_path / "net.pkl", "ddpm++", nvidia)
    done = run(path, "--into", tmp_path / "g", "--data", "cifar10")
    assert done.returncode == 2 and "is conditioned on 3 classes, the data has 10" in done.stderr


def test_published_generators_are_listed_with_address_and_license(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ROBUSTGEN_WEIGHTS", str(tmp_path))
    lines = dict(known("generators"))
    assert "conditional; CC BY-NC-SA 4.0, non-commercial; https://" in lines["edm-cifar10-32x32-cond-vp"]
    for name, one in GENERATOR_FILES.items():
        assert find(name).files == (one.file,) and f"-{'cond' if one.conditional else 'uncond'}-" in f"{name}-"
        with pytest.raises(ValueError, match=f"run: robustgen fetch {name}"):
            find_generator_file(name)
    assert "non-commercial" in capsys.readouterr().out
    (tmp_path / "edm-cifar10-32x32-cond-vp.pkl").touch()
    assert find_generator_file("edm-cifar10-32x32-cond-vp").parent == tmp_path
