"""Folders for Hugging Face: the card says what the files say, others can read it, and hf:FOLDER opens the model."""

import io
import json
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
import torch
import yaml

import robustgen as package
from robustgen import cli
from robustgen.config.recipe import DataConfig
from robustgen.config.source import Source, place_of
from robustgen.datasets import load_test
from robustgen.evaluation.cascade import evaluate
from robustgen.images import to_unit
from robustgen.models.saved import load_classifier
from robustgen.stages.publish import publish, subject_of
from robustgen.threat import ThreatModel

CNN = """
from torch import nn
def make(num_classes, width=4):
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36 * width, num_classes))
"""


def command(folder, *words, code=0):
    """What a command prints in a folder, which ends with this code."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["robustgen", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert end.value.code == code, said.getvalue()
    return said.getvalue()


def metadata_of(folder):
    head = (folder / "README.md").read_text().split("---\n")[1]
    return yaml.safe_load(head)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network of the user's own, trained and evaluated by the commands."""
    root = tmp_path_factory.mktemp("own")
    (root / "net.py").write_text(CNN)
    sets = "train.architecture=net.py:make train.schedule.total_images=640 train.validations=1 data.train=60"
    words = [word for one in sets.split() for word in ("--set", one)]
    command(root, "train", "--into", "models/own", *words)
    command(root, "evaluate", "models/own", "--suite", "quick", "--images", "30")
    return root


def test_a_folder_for_hugging_face_opens_everywhere_and_says_what_was_measured(trained):
    said = command(trained, "publish", "models/own", "--to", "hf-folder", "--license", "mit", "--into", "up/own")
    folder = trained / "up" / "own"
    assert "loaded again, logits differ by" in said and "Note" not in said
    assert {path.name for path in folder.iterdir()} == {"README.md", "model.json", "network.py", "weights.safetensors"}
    verdicts = package.Verdicts.load(trained / "models" / "own" / "quick.npz")
    about, card = metadata_of(folder), (folder / "README.md").read_text()
    assert about["license"] == "mit" and about["library_name"] == "robustgen" and "datasets" not in about
    values = {one["name"]: one["value"] for one in about["model-index"][0]["results"][0]["metrics"]}
    robust = round(100 * verdicts.robust_accuracy.value, 2)
    assert values["robust accuracy, quick, linf 0.2, 30 images"] == robust
    assert f"| quick | linf 0.2 | 30 | {100 * verdicts.clean_accuracy.value:.1f} |" in card
    assert "Real training images of digits: 60. No generated images." in card and "total_images: 640" in card
    assert "robust to perturbations of l-infinity norm up to 0.2" in card
    repeat = "    robustgen evaluate hf:FOLDER --data NAME=PATH --threat linf:0.2 --suite quick --seed 0\n"
    assert repeat in card and str(trained) not in card

    shutil.move(trained / "net.py", trained / "elsewhere.py")  # the folder has its own copy
    model = package.load_model(f"hf:{folder}")
    images = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(model(images), load_classifier(trained / "models" / "own")(images))
    line = ["evaluate", "hf:up/own", "--data", "digits", "--suite", "quick", "--images", "5", "--into", "again.npz"]
    assert "linf:0.2 (up/own/model.json" in command(trained, *line)
    shutil.move(trained / "elsewhere.py", trained / "net.py")


def test_hugging_faces_own_reader_takes_the_card(trained):
    hub = pytest.importorskip("huggingface_hub")
    folder = trained / "cards"
    publish(subject_of(Source(str(trained / "models" / "own")), DataConfig()), "hf-folder", folder)
    data = hub.ModelCard.load(folder / "README.md").data
    assert data.library_name == "robustgen" and data.pipeline_tag == "image-classification" and data.license is None
    assert {one.metric_type for one in data.eval_results} == {"accuracy"} and len(data.eval_results) == 2
    assert {one.dataset_type for one in data.eval_results} == {"digits"}


def test_a_card_names_only_results_of_its_own_model(trained):
    own = str(trained / "models" / "own")
    other = trained / "other.npz"
    images = load_test(DataConfig(name="digits", test=5))
    pixels, labels = to_unit(images.pixels()), images.targets()
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    evaluate(net, pixels, labels, ThreatModel("linf", 0.1), "quick").save(other)
    refused = {
        ("--results", str(other)): "is about another classifier",
        ("--results", "nowhere.npz"): "there is no file",
        ("--license", "MIT License"): "expected a name as on Hugging Face, such as mit or cc-by-4.0",
    }
    for words, message in refused.items():
        line = ["publish", own, "--to", "hf-folder", "--into", str(trained / "bad"), *words]
        assert message in command(trained, *line, code=2)
        assert not (trained / "bad").exists()
    line = ["publish", own, "--to", "torch-export", "--license", "mit", "--into", "x.pt2"]
    assert "are for the card of --to hf-folder" in command(trained, *line, code=2)
    line = ["publish", own, "--to", "hf-folder", "--into", own]
    assert "is the folder that is published" in command(trained, *line, code=2)
    assert (trained / "models" / "own" / "weights.safetensors").exists()


def test_an_audited_network_is_published_with_its_verdicts_and_without_the_paths_of_its_machine(trained):
    (trained / "plain.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    torch.save(net.state_dict(), trained / "plain.pt")
    images = torch.rand(3, 1, 8, 8)
    ways = {
        "function": (f"{trained}/plain.py:make", "--weights", "plain.pt"),
        "weights": ("plain.pt", "--architecture", f"{trained}/plain.py:make"),
        "normalized": (f"{trained}/plain.py:make", "--weights", "plain.pt", "--normalize", "0.5/0.25"),
    }
    for name, words in ways.items():
        judge = ["--data", "digits", "--threat", "linf:0.1", "--suite", "quick", "--images", "5"]
        command(trained, "evaluate", *words, *judge, "--into", f"{name}.npz")
        end = ["--data", "digits", "--to", "hf-folder", "--results", f"{name}.npz", "--into", f"up/{name}"]
        command(trained, "publish", *words, *end)
        folder = trained / "up" / name
        model, scaled = package.load_model(f"hf:{folder}"), (images - 0.5) / 0.25 if name == "normalized" else images
        torch.testing.assert_close(model(images), net(scaled))
        card = (folder / "README.md").read_text()
        assert "| quick | linf 0.1 | 5 |" in card and "No threat model is recorded" in card
        assert all(str(trained) not in text for text in (card, (folder / "model.json").read_text()))
    command(trained, "publish", "plain.pt", "--architecture", "plain.py:make", "--data", "digits",
            "--to", "safetensors", "--into", "plain.safetensors")  # fmt: skip


@pytest.mark.parametrize("option", ["--weights", "--architecture", "--normalize"])
def test_a_folder_needs_no_options_of_other_sources(trained, option):
    line = ["publish", "models/own", option, "data", "--to", "hf-folder", "--into", "up/options"]
    said = command(trained, *line, code=2)
    assert f"models/own is a folder written by train, which needs no {option}; leave it out" in said
    assert not (trained / "up" / "options").exists()


def test_a_folder_with_other_files_is_not_published_into(trained):
    weights = (trained / "models" / "own" / "weights.safetensors").read_bytes()
    shutil.copytree(trained / "models" / "own", trained / "second")
    (trained / "second" / "weights.safetensors").write_bytes(b"mine")
    (trained / "cloned" / ".git").mkdir(parents=True)
    refused = {
        ("models", "hf-folder"): "models holds own, which would be uploaded too",
        ("second", "hf-folder"): "which would be uploaded too",
        ("second", "safetensors"): "second is a folder written by train, which would be overwritten",
        ("card.safetensors", "hf-folder"): "hf-folder needs a folder, got the name of a file",
    }
    for (into, form), message in refused.items():
        assert message in command(trained, "publish", "models/own", "--to", form, "--into", into, code=2)
    assert (trained / "second" / "weights.safetensors").read_bytes() == b"mine"
    command(trained, "publish", "models/own", "--to", "hf-folder", "--into", "cloned")
    assert (trained / "cloned" / "weights.safetensors").read_bytes() == weights


def test_an_edited_card_is_never_overwritten(trained):
    line = ["publish", "models/own", "--to", "hf-folder", "--into", "edited"]
    assert "Note: the card names no license" in command(trained, *line)
    (trained / "edited" / "README.md").write_text("mine")
    assert "exists and may have been edited" in command(trained, *line, code=2)
    assert (trained / "edited" / "README.md").read_text() == "mine"
    assert (trained / "edited" / "weights.safetensors").exists()


def test_a_place_of_hugging_face_is_a_folder_only_where_publish_wrote_it(tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "model.json").write_text(json.dumps({}))
    assert place_of(f"hf:{tmp_path}/ours") == f"{tmp_path}/ours"
    assert place_of(f"hf:{tmp_path}") == f"hf:{tmp_path}" and place_of("models/own") == "models/own"


def test_only_the_card_reads_verdicts(trained):
    verdicts = trained / "models" / "own" / "quick.npz"
    whole = verdicts.read_bytes()
    verdicts.write_bytes(whole[:100])
    line = ["publish", "models/own", "--to"]
    command(trained, *line, "safetensors", "--into", "weights")
    said = command(trained, *line, "hf-folder", "--into", "card", code=2)
    assert "quick.npz" in said and not (trained / "card").exists()
    verdicts.write_bytes(whole)
