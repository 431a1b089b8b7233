"""Networks that others wrote: trained, kept, opened again and judged like the built-in ones."""

import json
import warnings

import pytest
import torch
from torch import nn

import robustgen
from robustgen.config.source import Source
from robustgen.images import DatasetInfo
from robustgen.models import build_model
from robustgen.models.foreign import Adapted, logits_of
from robustgen.models.saved import load_classifier
from robustgen.models.sources import open_classifier
from robustgen.randomness import rng_for
from robustgen.storage.references import Reference

INFO = DatasetInfo("x", ("a", "b", "c", "d"), (1, 8, 8), (0.5,), (0.3,))
NETWORKS = """
import torch
from torch import nn


class ViT(nn.Module):
    def __init__(self, num_classes, img_size, in_chans=1, width=8):
        super().__init__()
        self.patches = nn.Conv2d(in_chans, width, 4, 4)
        self.places = nn.Parameter(torch.zeros((img_size // 4) ** 2, width))
        self.layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.1, batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images):
        rows = self.patches(images).flatten(2).mT + self.places
        return self.head(self.norm(self.layer(rows)).mean(1))


def cnn(classes, shape, width=4):
    return nn.Sequential(nn.Conv2d(shape[0], width, 3, padding=1), nn.ReLU(), nn.Flatten(),
                         nn.Linear(width * shape[1] * shape[2], classes))


def batch_norm(classes=10):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.ReLU(), nn.Flatten(),
                         nn.Linear(4 * 36, classes))


class Pair(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.layer = nn.Linear(64, classes)

    def forward(self, images):
        logits = self.layer(images.flatten(1))
        return logits, logits.softmax(1)


class Named(Pair):
    def forward(self, images):
        return {"logits": super().forward(images)[0], "hidden": images}


class Nothing(Pair):
    def forward(self, images):
        return {"scores": images}


ready = cnn(10, (1, 8, 8))


def broken():
    raise RuntimeError("no\\nluck")


def text():
    return "text"
"""
REFERENCES = ["ViT(width=16)", "cnn", "batch_norm", "Pair", "Named", "ready"]
QUICK = ("schedule.total_images=128", "schedule.batch_size=64", "models=1", "validations=1", "validation_steps=2",
         "loss.attack.steps=1")  # fmt: skip
SHORT = [word for setting in QUICK for word in ("--set", f"train.{setting}")]


@pytest.fixture
def networks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETWORKS)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("net.py:make", ("net.py", "make", {})),
        ("a/b c/net.py:make(width=64, kind='x')", ("a/b c/net.py", "make", {"width": 64, "kind": "x"})),
        ("mine.nets:Net()", ("mine.nets", "Net", {})),
        ("timm:vit_tiny_patch16_224.augreg(depth=2)", ("timm", "vit_tiny_patch16_224.augreg", {"depth": 2})),
        ("hf:models/vit", ("hf", "models/vit", {})),
        ("wrn-28-10", None),
        ("hub:Wang2023Better_WRN-28-10", None),
        ("models/robust", None),
    ],
)
def test_references_are_read(text, found):
    reference = Reference.parse(text)
    assert (reference and (reference.where, reference.name, dict(reference.arguments))) == found
    assert reference is None or Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text", ["net.py:make(3)", "net.py:make(width=f())", "net.py:make(**x)", "net.py:make(width=)"]
)
def test_arguments_are_plain_values_by_name(text):
    with pytest.raises(ValueError, match="expected arguments by name with plain values"):
        Reference.parse(text)


@pytest.mark.parametrize("name", REFERENCES)
def test_any_network_is_trained_kept_and_judged(networks, robustgen, name):
    code, _, err = robustgen(
        "train", "--recipe", "digits-smoke", "--into", "m", "--set", f"train.architecture=net.py:{name}", *SHORT
    )
    assert code == 0, err
    about = json.loads((networks / "m" / "model.json").read_text())
    assert about["architecture"] == f"net.py:{name}" and (networks / "m" / "network.py").read_text() == NETWORKS
    model = load_classifier(networks / "m")
    assert isinstance(model, Adapted) and model(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    code, out, err = robustgen("evaluate", "m", "--suite", "quick", "--images", 8)
    assert code == 0 and "digits" in out.splitlines()[0], err
    (networks / "net.py").unlink()  # the copy in the folder is enough
    again = load_classifier(networks / "m")
    assert torch.equal(again(torch.ones(1, 1, 8, 8)), model(torch.ones(1, 1, 8, 8)))


def test_a_changed_source_is_said_and_not_used(networks, robustgen):
    line = ("train", "--recipe", "digits-smoke", "--into", "m", "--set", "train.architecture=net.py:cnn", *SHORT)
    assert robustgen(*line)[0] == 0
    (networks / "net.py").write_text(NETWORKS.replace("width=4", "width=5"))
    with pytest.warns(UserWarning, match=r"net.py has changed since .*m was trained; the copy from then"):
        assert load_classifier(networks / "m").network[0].out_channels == 4
    (networks / "m" / "model.json").unlink()
    code, _, err = robustgen(*line)
    assert code == 2 and "net.py has changed since training began in m" in err


def test_a_run_trains_a_network_of_ones_own(networks, robustgen):
    code, _, err = robustgen(
        "run", "digits-smoke", "--scale", "tiny", "--into", "r", "--set", "train.architecture=net.py:ViT(width=8)",
        "--set", "labeller.architecture=net.py:cnn",
    )  # fmt: skip
    assert code == 0, err
    assert (networks / "r" / "report.html").exists() and (networks / "r" / "labeller" / "network.py").exists()
    code, _, err = robustgen("run", "digits-smoke", "--into", "s", "--set", "train.architecture=net.py:vit")
    assert code == 2 and "no function 'vit'; known: ViT, cnn" in err and err.count("\n") == 1


def test_a_network_initializes_itself_and_the_seed_decides(networks):
    first, same, other = (build_model("net.py:cnn", INFO, rng_for(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.network[0].weight, same.network[0].weight)
    assert not torch.equal(first.network[0].weight, other.network[0].weight)
    before = torch.random.get_rng_state()
    build_model("net.py:cnn", INFO)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("net.py:broken", "net.py:broken fails: RuntimeError: no luck"),
        ("net.py:text", "must return an nn.Module, got str"),
        ("net.py:ready(width=3)", "is a network already"),
        ("net.py:ViT(widht=3)", "fails: TypeError: .*widht"),
        ("missing.py:make", "there is no file missing.py"),
        ("nowhere.nothing:make", "cannot import nowhere.nothing"),
        ("hf:nowhere", "but there is no such folder; download OWNER/NAME with: hf download"),
    ],
)
def test_what_cannot_be_built_is_one_line(networks, reference, message):
    with pytest.raises(ValueError, match=message) as caught:
        build_model(reference, INFO)
    assert "\n" not in str(caught.value)


def test_outputs_of_many_forms_give_logits():
    class Output:
        logits = torch.ones(2, 3)

    for output in (
        torch.ones(2, 3),
        (torch.ones(2, 3), None),
        [None, torch.ones(2, 3)],
        {"logits": torch.ones(2, 3)},
        Output(),
    ):
        assert logits_of(output).shape == (2, 3)
    for output in ({"scores": torch.ones(1)}, "text", None, ()):
        with pytest.raises(TypeError, match="expected logits"):
            logits_of(output)


def test_a_network_without_logits_is_one_line(networks, robustgen):
    line = ("--data", "digits", "--threat", "linf:0.1", "--suite", "quick", "--images", 4)
    code, _, err = robustgen("evaluate", "net.py:Nothing", *line)
    assert code == 2 and err.count("\n") == 1 and "returns dict with scores" in err


def linear(classes=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes)).eval()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_networks_in_other_precisions_are_used_as_they_are(networks, dtype):
    kind = str(dtype).removeprefix("torch.")
    (networks / "other.py").write_text(
        f"import torch\nfrom torch import nn\n\ndef make():\n    torch.manual_seed(0)\n"
        f"    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).to(torch.{kind})\n"
    )
    model = open_classifier(Source("other.py:make"), INFO)
    images = torch.rand(3, 1, 8, 8, requires_grad=True)
    assert model.network[1].weight.dtype == dtype and model(images).dtype == torch.float32
    torch.testing.assert_close(model(images), linear()(images), atol=0.02, rtol=0.02)
    model(images).sum().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.filterwarnings("ignore")
def test_programs_are_judged_and_never_changed(networks, robustgen):
    rows = torch.zeros(2, 1, 8, 8)
    program = torch.export.export(linear(10), (rows,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, networks / "net.pt2")
    torch.jit.script(linear(10)).save(networks / "net.ts")
    images = torch.rand(5, 1, 8, 8)
    for name in ("net.pt2", "net.ts"):
        model = open_classifier(Source(name), INFO)
        torch.testing.assert_close(model(images), linear(10)(images))
        assert all(parameter.requires_grad for parameter in model.parameters()) or name == "net.pt2"
        code, _, err = robustgen("evaluate", name, "--data", "digits", "--threat", "linf:0.1", "--suite", "quick",
                                   "--images", 4)  # fmt: skip
        assert code == 0, err
    (networks / "bad.pt2").write_bytes((networks / "net.pt2").read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"damaged|holds weights"):
        open_classifier(Source("bad.pt2"), INFO)


def test_python_objects_are_trained_and_loaded_again(tmp_path):
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(8) % 4
    network = linear()
    model = robustgen.train(
        images, labels, architecture=network, threat="linf:0.1", steps=2, batch_size=4, into=tmp_path / "m",
        loss={"kind": "trades", "attack": {"steps": 1}},
    )  # fmt: skip
    assert torch.equal(network[1].weight, linear()[1].weight)  # copied, not trained in place
    again = robustgen.load_model(tmp_path / "m", network=linear())
    assert torch.equal(again(images), model(images))
    with pytest.raises(ValueError, match="trained from a Sequential that was built in Python"):
        robustgen.load_model(tmp_path / "m")


def test_normalization_is_put_in_front_unless_told_otherwise(networks):
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(8) % 4
    options = {"architecture": "net.py:cnn", "threat": "linf:0.1", "steps": 1, "batch_size": 4, "loss": "plain"}
    usual, plain = (robustgen.train(images, labels, normalize=normalize, **options) for normalize in (True, False))
    assert usual.normalize.mean.item() == pytest.approx(images.mean().item(), abs=0.01)
    assert plain.normalize.mean.item() == 0 and plain.normalize.std.item() == 1


def test_hugging_face_and_timm_networks(tmp_path):
    """Both are optional; where one is absent the error says how to install it."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.json").write_text("{}")
    for name, reference in (("timm", "timm:resnet10t"), ("transformers", f"hf:{tmp_path / 'theirs'}")):
        try:
            __import__(name)
        except ImportError:
            with pytest.raises(
                ValueError, match=rf"{name} is needed for this network: pip install 'robustgen\[{name}\]'"
            ):
                build_model(reference, INFO)
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name == "timm":
                assert build_model(reference, INFO)(torch.zeros(2, 1, 8, 8)).shape == (2, 4)
                continue
            from transformers import ViTConfig, ViTForImageClassification

            settings = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
                                 image_size=8, patch_size=4, num_channels=1, num_labels=4)  # fmt: skip
            ViTForImageClassification(settings).save_pretrained(tmp_path / "vit")
            model = open_classifier(Source(f"hf:{tmp_path / 'vit'}"), INFO)
            assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 4)
