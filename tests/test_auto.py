"""The recipe of `run auto`: it fits the time, the images and the device, and gives its reasons."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import yaml

from robustgen.config.loading import from_content
from robustgen.config.recipe import DataConfig, ThreatConfig
from robustgen.pipeline.graph import check_recipe
from robustgen.planning.auto import EVALUATIONS, SWIFT_PASSES, choose, choose_side, seconds_of
from robustgen.planning.facts import ImageFacts, Speed
from robustgen.stages.auto import keep_better, measure_speed
from robustgen.storage.files import write_json
from robustgen.storage.run_folder import RunDir

DIGITS = ImageFacts(1797, 0, (1, 8, 8), 10, 174, 183)
PHOTOS = ImageFacts(2500, 0, (3, 64, 64), 50, 50, 50)
CIFAR = ImageFacts(50_000, 10_000, (3, 32, 32), 10, 5000, 5000)
THREAT = ThreatConfig(norm="linf", eps=4 / 255)
NAMES = ("wrn-10-1", "wrn-10-2", "wrn-16-2", "wrn-16-4", "preact-resnet-18", "wrn-28-10")


def speed(scale, jobs=2, device="cpu"):
    """Seconds of a device on which the smallest network takes `scale` a pass; larger ones two to five times as long."""
    passes = dict(zip(NAMES, (scale * factor for factor in (1, 3, 8, 24, 60, 500)), strict=True))
    return Speed(passes, {16: 9 * scale, 32: 30 * scale, 64: 200 * scale, 128: 1500 * scale}, jobs, device)


def chosen(facts, seconds, rate, **more):
    side, _ = choose_side(facts, seconds, rate.device)
    return choose(facts, rate, seconds, DataConfig(name="npz", path="mine.npz", resize=side), THREAT, **more)


def seconds_needed(recipe, facts, rate):
    """Of the stages on the longest way, counted from the recipe alone."""
    train, network = recipe.train, recipe.train.architecture
    robust = train.schedule.total_images * train.loss.passes() * rate.passes[network]
    judge = recipe.data.test * SWIFT_PASSES * rate.passes[network]
    (generator,) = recipe.generators.values()
    if generator.kind == "gaussian":
        fit = sample = 0.0
    else:
        fit = generator.total_images * rate.diffusion[generator.channels]
        sample = recipe.sampling.count * EVALUATIONS * rate.diffusion[generator.channels] / 3
    labeler = 3 * recipe.labeller.schedule.total_images * rate.passes[network]
    if rate.jobs > 1:  # the classifier of real images is trained and attacked by the other process
        return labeler + fit + sample + robust + judge
    return labeler + fit + sample + 2 * (robust + judge)


@pytest.mark.parametrize("facts", [DIGITS, PHOTOS, CIFAR], ids=["digits", "photos", "cifar"])
@pytest.mark.parametrize("seconds", [120, 1800, 7200, 86_400])
@pytest.mark.parametrize("rate", [speed(2e-5), speed(2e-4), speed(1e-6, 1, "cuda")], ids=["fast", "slow", "gpu"])
def test_the_recipe_fits_the_time_and_is_a_recipe(facts, seconds, rate):
    try:
        recipe, choices = chosen(facts, seconds, rate)
    except ValueError as error:
        assert "the time is too short for the smallest network: give --time" in str(error)
        assert seconds <= 120 and rate.passes["wrn-10-1"] > 1e-4
        return
    assert seconds_needed(recipe, facts, rate) <= seconds
    again = from_content(yaml.safe_load(yaml.safe_dump(recipe.to_json())), "auto.yaml")
    assert again == recipe
    check_recipe(recipe)
    assert list(recipe.arms) == ["real", *recipe.generators] and all(choice.why for choice in choices)
    aside = 0 if facts.test else recipe.data.test
    assert recipe.data.validation + aside < facts.count and recipe.data.test >= 10
    # Every class can keep its images, however seldom a poor standard classifier predicts it.
    assert recipe.labels == "condition" and recipe.keep.per_class * facts.classes <= recipe.sampling.count


@pytest.mark.parametrize("jobs", [1, 2])
def test_without_a_diffusion_model_its_time_goes_to_the_classifiers(jobs):
    fast = speed(1e-4, jobs)
    slow = replace(fast, diffusion={})
    with_edm, with_gaussian = (chosen(DIGITS, 1800, rate, network="wrn-10-2")[0] for rate in (fast, slow))
    assert "edm" in with_edm.arms and "gaussian" in with_gaussian.arms
    spent, more = (r.train.schedule.total_images * r.train.loss.passes() for r in (with_edm, with_gaussian))
    assert 1.15 * spent < more and seconds_needed(with_gaussian, DIGITS, slow) <= 1800


def test_more_time_and_more_images_allow_more():
    networks = [chosen(CIFAR, seconds, speed(2e-5))[0].train.architecture for seconds in (600, 7200, 86_400)]
    assert [NAMES.index(name) for name in networks] == sorted(NAMES.index(name) for name in networks)
    assert networks[0] != networks[-1]
    assert chosen(DIGITS, 86_400, speed(2e-6))[0].train.architecture == "wrn-16-2"  # few images
    assert chosen(DIGITS, 86_400, speed(2e-6))[0].generators["edm"].channels == 32


def test_little_time_takes_one_step_and_a_gaussian():
    recipe, choices = chosen(PHOTOS, 300, speed(2e-4))
    assert recipe.train.loss.attack.optimizer == "n-fgsm" and list(recipe.generators) == ["gaussian"]
    why = {choice.what: choice.why for choice in choices}
    assert "ten steps take too long" in why["inner attack"] and "minutes in all" in why["generator"]


def test_sizes_suit_the_images():
    assert choose_side(DIGITS, 60, "cpu")[0] is None
    assert choose_side(PHOTOS, 7200, "cpu")[0] == 32 and choose_side(PHOTOS, 7200, "cuda")[0] is None
    assert choose_side(ImageFacts(9, 0, (3, 30, 50), 2, 4, 5), 60, "cpu")[0] == 28
    assert choose_side(ImageFacts(9, 0, (1, 6, 6), 2, 4, 5), 60, "cpu")[0] == 8


def test_photographs_are_mirrored_and_gray_images_are_not():
    assert chosen(PHOTOS, 3600, speed(2e-5))[0].train.augment == "crop-flip"
    recipe, _ = chosen(DIGITS, 3600, speed(2e-5))
    assert recipe.train.augment == "none" and not recipe.generators["edm"].flip


def test_imbalance_is_said():
    _, choices = chosen(ImageFacts(2000, 0, (3, 32, 32), 10, 20, 900), 3600, speed(2e-5))
    assert any("imbalanced, 20 to 900 images each" in choice.why for choice in choices)


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="12 images of 6 classes are too few"):
        chosen(ImageFacts(12, 0, (3, 32, 32), 6, 2, 2), 3600, speed(2e-5))


def test_a_network_of_ones_own_is_taken():
    rate = Speed({"net.py:make": 1e-4}, speed(2e-5).diffusion, 2, "cpu")
    recipe, choices = chosen(PHOTOS, 3600, rate, network="net.py:make")
    assert recipe.train.architecture == recipe.labeller.architecture == "net.py:make"
    assert any(choice.value == "net.py:make" and choice.why == "as requested" for choice in choices)


def test_a_network_without_normalization_learns_slower():
    own = Speed({"net.py:make": 1e-4}, speed(2e-5).diffusion, 2, "cpu", normalized=False)
    recipe, choices = chosen(PHOTOS, 3600, own, network="net.py:make")
    assert recipe.train.schedule.peak_lr == recipe.labeller.schedule.peak_lr == 0.05
    assert any(choice.why == "the network has no normalization layers" for choice in choices)
    assert chosen(PHOTOS, 3600, speed(2e-5))[0].train.schedule.peak_lr == 0.2


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("nn.Flatten(), nn.Linear(64, 10)", r"does not accept these images: for input \(2, 3, 8, 8\)"),
        ("nn.Flatten(), nn.Linear(192, 3)", r"returns \(2, 3\) for 2 images, expected \(2, 4\)"),
    ],
)
def test_a_network_that_does_not_suit_the_images_is_refused_before_it_is_timed(layers, message, tmp_path):
    path = tmp_path / "net.py"
    path.write_text(f"from torch import nn\ndef make():\n    return nn.Sequential({layers})\n")
    with pytest.raises(ValueError, match=message):
        measure_speed(ImageFacts(60, 0, (3, 8, 8), 4, 15, 15), 8, "cpu", 1, f"{path}:make", 60)


def test_the_numbers_of_images_that_are_named_are_those_of_the_run():
    """Images that the time does not allow to judge are trained on."""
    recipe, choices = chosen(PHOTOS, 300, speed(2e-4))
    said = {choice.what: choice.value for choice in choices}
    train = PHOTOS.count - recipe.data.validation - recipe.data.test
    assert recipe.data.test < 500 and said["images"].startswith(f"{train} to train on, {recipe.data.validation} to")
    assert seconds_needed(recipe, PHOTOS, speed(2e-4)) <= 300


def test_times_are_read():
    assert [seconds_of(text) for text in ("90s", "10m", "1.5h", "1d", " 2 h ")] == [90, 600, 5400, 86_400, 7200]
    for text in ("10", "5s", "an hour", "-1h", ""):
        with pytest.raises(ValueError, match="expected a time of a minute or more"):
            seconds_of(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["auto", "--data", "digits"], "run auto needs --data NAME[=PATH] and --threat NORM:EPS"),
        (["auto", "--threat", "linf:0.1"], "run auto needs --data"),
        (["auto", "--data", "digits", "--threat", "linf:0.1", "--time", "soon"], "expected a time of a minute"),
        (["auto", "--data", "digits", "--threat", "linf:0.1", "--scale", "tiny"], "leave out --scale"),
        (["digits", "--time", "2h"], "--time is for the recipe auto; change digits with --set"),
        (["digits", "--network", "net.py:make"], "--network is for the recipe auto"),
    ],
)
def test_wrong_words_are_one_line(robustgen, words, message):
    code, _, err = robustgen("run", *words)
    assert code == 2 and message in err and err.count("\n") == 1


def test_a_choice_is_kept_and_another_is_refused(robustgen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe, _ = chosen(DIGITS, 60, speed(2e-5))
    (tmp_path / "r").mkdir()
    text = yaml.safe_dump(
        recipe.model_copy(update={"data": DataConfig(name="digits", validation=100, test=50)}).to_json()
    )
    (tmp_path / "r" / "auto.yaml").write_text(f"# robustgen run auto --data digits --threat linf:0.1 --time 1m\n{text}")
    line = ("run", "auto", "--data", "digits", "--threat", "linf:0.1", "--into", "r", "--dry-run")
    code, out, err = robustgen(*line, "--time", "1m")
    assert code == 0 and "auto into r" in out and "Looking at the images" not in out, err
    code, _, err = robustgen(*line, "--time", "2m")
    assert code == 2 and "was chosen by 'robustgen run auto --data digits --threat linf:0.1 --time 1m'" in err


def test_the_better_classifier_on_the_validation_images_is_kept(tmp_path):
    run = RunDir(tmp_path)
    about = {"dataset": "digits", "classes": ["a", "b"], "shape": [1, 8, 8], "mean": [0.5], "std": [0.5]}
    for arm, robust in (("real", 30), ("edm", 35)):
        folder = tmp_path / "classifiers" / f"{arm}-0"
        write_json(folder / "model.json", {**about, "architecture": arm, "validation": {"robust": [robust, 100]}})
        (folder / "weights.safetensors").write_text(arm)
    chosen_models = {"real": "real-0", "edm": "edm-0"}
    for _ in range(2):  # also where an earlier one is there
        said = keep_better(run, chosen_models)
        assert "Kept: edm" in said and "real 30.0 %, edm 35.0 %" in said
        assert "with 100 of them a difference below 13 points may be chance" in said
        assert (tmp_path / "best" / "weights.safetensors").read_text() == "edm"
    write_json(tmp_path / "classifiers" / "edm-0" / "model.json", {**about, "architecture": "edm", "validation": None})
    assert "without validation images" in keep_better(run, chosen_models)


@pytest.mark.slow
def test_auto_runs_from_images_to_the_better_classifier(robustgen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ("run", "auto", "--data", "digits", "--threat", "linf:0.2", "--time", "2m")
    code, out, err = robustgen(*line)
    assert code == 0, err
    assert "Kept: " in out and (tmp_path / "runs" / "auto" / "best" / "model.json").exists()
    code, out, err = robustgen("evaluate", "runs/auto/best", "--suite", "quick", "--images", 8)
    assert code == 0 and "recipe.json" in out.splitlines()[0], err
    assert robustgen(*line)[0] == 0


PARENT = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from robustgen.pipeline.launchers.elastic import exit_with_parent

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=exit_with_parent)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(600)
"""


def test_the_process_that_looks_at_the_images_ends_with_its_parent(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    with subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.kill()
    until = time.monotonic() + 60
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < until:
            os.kill(child, 0)
            time.sleep(0.05)
