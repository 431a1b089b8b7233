"""Classifiers in the forms that others read, opened as others would open them."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from robustgen.config.recipe import DataConfig
from robustgen.images import DatasetInfo
from robustgen.models import build_model, catalog
from robustgen.models.saved import load_classifier, save_classifier
from robustgen.models.sources import Source
from robustgen.randomness import rng_for
from robustgen.records.verdicts import Verdicts
from robustgen.stages.publish import FORMS, PublishedClassifier, publish, subject_of

CIFAR = catalog.RELEASE_INFOS["cifar10"]
IMAGES = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def trained(name="wrn-10-2", info=CIFAR):
    model = build_model(name, info, rng_for(0))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(0))
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=torch.Generator().manual_seed(1))
    return model.eval()


@pytest.fixture
def folder(tmp_path):
    """As train leaves it."""
    save_classifier(tmp_path / "model", trained(), "wrn-10-2", CIFAR, threat="linf:8/255", seed=0)
    return tmp_path / "model"


def subject(folder):
    return subject_of(Source(str(folder)), DataConfig())


def logits(model, images=IMAGES):
    with torch.no_grad():
        return model(images)


def test_safetensors_is_a_folder_that_every_verb_opens_or_a_file_with_what_it_is(folder, tmp_path):
    said = publish(subject(folder), "safetensors", tmp_path / "again")
    assert "again/weights.safetensors, " in said and "loaded again, logits differ by" in said
    torch.testing.assert_close(logits(load_classifier(tmp_path / "again")), logits(trained()))
    publish(subject(folder), "safetensors", tmp_path / "one.safetensors")
    about = json.loads((tmp_path / "one.json").read_text())
    assert about["architecture"] == "wrn-10-2" and about["threat"] == "linf:8/255" and about["shape"] == [3, 32, 32]
    state = load_file(tmp_path / "one.safetensors")
    assert all(torch.equal(state[name], value) for name, value in trained().state_dict().items())


def robustbench_loads(path):
    """What RobustBench's load_model does to a file: state_dict if there is one, then two prefixes off."""
    content = torch.load(path, weights_only=True)
    content = content.get("state_dict", content)
    for prefix in ("module.", "model."):
        content = {name[len(prefix) :] if prefix in name else name: value for name, value in content.items()}
    return content


def test_robustbench_gets_bare_names_and_its_description(folder, tmp_path):
    from robustgen.evaluation.cascade import evaluate
    from robustgen.threat import ThreatModel

    labels = logits(trained()).argmax(1)
    verdicts = evaluate(trained(), IMAGES, labels, ThreatModel("linf", 8 / 255), "quick")
    verdicts.save(folder / "autoattack.npz")
    publish(subject(folder), "robustbench", tmp_path / "out" / "mine.pt")
    state = robustbench_loads(tmp_path / "out" / "mine.pt")
    assert set(state) == set(trained().state_dict()) and "layer.0.block.0.batchnorm_0.weight" in state
    about = json.loads((tmp_path / "out" / "mine.json").read_text())
    assert list(about) == [
        "link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture",
        "eps", "clean_acc", "reported", "autoattack_acc", "footnote", "unreliable",
    ]  # fmt: skip
    assert about["architecture"] == "WideResNet-10-2" and about["eps"] == "8/255" and about["dataset"] == "cifar10"
    assert about["clean_acc"] == "100.00" and about["autoattack_acc"] == f"{100 * verdicts.robust.mean():.2f}"
    half = Verdicts.load(folder / "autoattack.npz")
    half.faced[:] = 1
    half.fell_to[:] = -1
    half.save(folder / "autoattack.npz")
    publish(subject(folder), "robustbench", tmp_path / "out" / "mine.pt")
    assert json.loads((tmp_path / "out" / "mine.json").read_text())["clean_acc"] == ""  # not finished: nothing is said


@pytest.mark.parametrize(
    ("name", "info", "message"),
    [
        (
            "wrn-10-2",
            DatasetInfo("digits", tuple("0123456789"), (1, 8, 8), (0.3,), (0.4,)),
            "needs images of 32x32, this one is for 8x8",
        ),
        ("own-1", CIFAR, "RobustBench has no class for own-1"),
        ("wrn-10-2-stem2", CIFAR, "RobustBench has no class for wrn-10-2-stem2"),
        ("trades-wrn-10-2-silu", CIFAR, "RobustBench has no class for trades-wrn-10-2-silu"),
        ("trades-wrn-10-2", CIFAR, "does not normalize its inputs, this one does"),
        (None, CIFAR, "robustbench needs a network that robustgen builds by name"),
    ],
)
def test_what_robustbench_would_compute_differently_is_refused(name, info, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        publish(
            PublishedClassifier("x", trained("wrn-10-2", info), info, name, "linf:8/255"),
            "robustbench",
            tmp_path / "x.pt",
        )
    assert not list(tmp_path.iterdir())


def test_torch_export_needs_torch_alone_and_takes_any_number_of_images(folder, tmp_path):
    publish(subject(folder), "torch-export", tmp_path / "x.pt2")
    program = torch.export.load(str(tmp_path / "x.pt2")).module()
    for count in (1, 2, 5):
        torch.testing.assert_close(
            logits(program, IMAGES[:count]), logits(trained(), IMAGES[:count]), rtol=1e-4, atol=1e-4
        )


@pytest.mark.filterwarnings("ignore")
def test_onnx_gives_the_same_logits_or_says_what_it_needs(folder, tmp_path):
    absent = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if absent:
        with pytest.raises(
            ValueError, match=rf"publishing as ONNX needs .*{absent[0]}.*pip install 'robustgen\[onnx\]'"
        ):
            publish(subject(folder), "onnx", tmp_path / "x.onnx")
        assert not (tmp_path / "x.onnx").exists()
        return
    import onnxruntime

    publish(subject(folder), "onnx", tmp_path / "x.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"), providers=["CPUExecutionProvider"])
    assert [one.name for one in (*session.get_inputs(), *session.get_outputs())] == ["images", "logits"]
    for count in (1, 5):
        (found,) = session.run(None, {"images": IMAGES[:count].numpy()})
        np.testing.assert_allclose(found, logits(trained(), IMAGES[:count]).numpy(), rtol=1e-3, atol=1e-3)


def test_a_form_that_gives_other_logits_leaves_nothing(folder, tmp_path, monkeypatch):
    def wrong(subject, into, files):
        into.write_bytes(b"x")
        files.append(into)
        return lambda images: subject.model(images) + 0.1

    monkeypatch.setitem(FORMS, "wrong", wrong)
    with pytest.raises(
        ValueError, match=r"does not reproduce the classifier's logits when it is loaded again: they differ by 0\.1"
    ):
        publish(subject(folder), "wrong", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    monkeypatch.setitem(FORMS, "wrong", lambda subject, into, files: lambda images: images.sum() * torch.nan)
    with pytest.raises(ValueError, match="they differ by nan"):
        publish(subject(folder), "wrong", tmp_path / "x")
    with pytest.raises(
        ValueError, match="unknown form 'pickle'; known: safetensors, hf-folder, robustbench, torch-export, onnx"
    ):
        publish(subject(folder), "pickle", tmp_path / "x")


def test_models_of_the_hub_and_of_others_are_published(tmp_path, monkeypatch):
    from dataclasses import replace

    name = "mnist/linf/Gowal2020Uncovering_28_10"
    small = replace(catalog.RELEASES[name], architecture="wrn-10-2")
    monkeypatch.setitem(catalog.RELEASES, name, small)
    inner = trained("wrn-10-2", catalog.RELEASE_INFOS["mnist"])
    torch.save(inner.state_dict(), tmp_path / "w.pt")
    found = subject_of(Source(f"hub:{name}", tmp_path / "w.pt"), DataConfig())
    assert found.padding == 2 and found.threat == "linf:0.3" and found.name == "Gowal2020Uncovering_28_10"
    publish(found, "robustbench", tmp_path / "rb.pt")
    assert set(torch.load(tmp_path / "rb.pt", weights_only=True)) == set(inner.state_dict())
    publish(found, "torch-export", tmp_path / "rb.pt2")
    with pytest.raises(ValueError, match=r"pads its images, which model\.json cannot describe"):
        publish(found, "safetensors", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    np.savez(tmp_path / "d.npz", image=np.zeros((10, 32, 32, 3), np.uint8), label=np.arange(10))
    data = DataConfig(name="npz", path=str(tmp_path / "d.npz"))
    torch.save(trained().state_dict(), tmp_path / "own.pt")
    mine = subject_of(Source(str(tmp_path / "own.pt"), architecture="wrn-10-2"), data)
    publish(mine, "safetensors", tmp_path / "folder")
    assert load_classifier(tmp_path / "folder")(IMAGES).shape == (5, 10)
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))\n"
    )
    code = subject_of(Source(f"{tmp_path / 'net.py'}:make", normalize="data"), data)
    publish(code, "torch-export", tmp_path / "code.pt2")
    publish(code, "safetensors", tmp_path / "code")
    torch.testing.assert_close(load_classifier(tmp_path / "code")(IMAGES), code.model(IMAGES))
    program = subject_of(Source(str(tmp_path / "code.pt2")), data)
    with pytest.raises(ValueError, match="needs a network that robustgen builds by name"):
        publish(program, "safetensors", tmp_path / "program")


def test_the_command_line_publishes_and_can_be_repeated(folder, robustgen, tmp_path):
    line = ("publish", "model", "--to", "robustbench", "--into", "out/mine.pt")
    code, out, _ = robustgen(*line, "--dry-run")
    assert code == 0 and "would publish into out on cpu" in out and not (tmp_path / "out").exists()
    code, out, err = robustgen(*line)
    assert code == 0, err
    assert "publish: out/mine.pt, out/mine.json; loaded again" in out
    first = (tmp_path / "out/mine.pt").read_bytes()
    assert robustgen(*line)[0] == 0 and (tmp_path / "out/mine.pt").read_bytes() == first


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("publish nowhere --to onnx --into x", "timm:NAME or hf:FOLDER, got nowhere, which does not exist"),
        ("publish net.py:make --to onnx --into x", "unknown what images net.py:make is for: publish needs --data"),
        (
            "publish nowhere --to onnx --into x --data digits",
            "timm:NAME or hf:FOLDER, got nowhere, which does not exist",
        ),
        ("publish model --to gif --into x", "unknown form 'gif'; known: safetensors"),
        ("publish model --into x", "Missing option '--to'"),
        ("publish model --to onnx", "Missing option '--into'"),
        ("publish hub:Nobody2020 --to onnx --into x", "no published model is called 'Nobody2020'"),
        ("publish hub:Wang2023Better_WRN-28-10 --to onnx --into x", "needs its weights: get them from https://hugg"),
    ],
)
def test_mistakes_are_one_clear_line(folder, robustgen, monkeypatch, line, message):
    monkeypatch.setenv("ROBUSTGEN_WEIGHTS", "weights")
    code, out, err = robustgen(*line.split())
    assert code == 2 and message in err and "Traceback" not in out + err
    assert err.startswith("robustgen: ") and err.count("\n") == 1


def test_a_run_is_not_a_classifier(robustgen, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text("{}")
    code, _, err = robustgen("publish", "run", "--to", "onnx", "--into", "x")
    assert code == 2 and "run is a run; publish one of the classifiers in run/classifiers" in err
