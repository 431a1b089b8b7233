"""Rows of papers as recipes: figures agree with the catalog, costs with torch, and all can be made small."""

import importlib.util
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from conftest import REPOSITORY
from robustgen.config.generators import EDMConfig
from robustgen.config.loading import from_content, override
from robustgen.config.training import TrainingConfig
from robustgen.config.unet_flops import unet_flops
from robustgen.datasets.npz import write_npz
from robustgen.generators.unet_adm import unet_of
from robustgen.images import DatasetInfo
from robustgen.models import build_model
from robustgen.models.catalog import RELEASES
from robustgen.pipeline.graph import check_recipe, stages
from robustgen.planning.costs import FORWARD, RATE, cost_of, forward_of, passes
from robustgen.planning.scaling_law import FLOPS, parameters_of
from robustgen.proxy.store import ProxySet
from robustgen.randomness import rng_for
from robustgen.recipes import PAPERS, RECIPES
from robustgen.recipes.rows import PAPER_LABELLER, PORTS
from robustgen.recipes.scaling import scaled
from robustgen.storage.run_folder import RunDir

ROWS = {name: recipe for name, recipe in RECIPES.items() if "/" in name}
CUTMIX_DDPM = "rebuffi2021/cifar10-linf-wrn-28-10-cutmix-ddpm"


@pytest.mark.parametrize(
    ("architecture", "channels", "side"),
    [
        *((name, 3, 32) for name in FORWARD),
        ("wrn-28-10", 3, 32),
        ("wrn-10-1", 1, 8),
        ("wrn-16-4", 1, 28),
        ("trades-wrn-34-10-unnormalised", 3, 32),
        ("wrn-28-10-stem2", 3, 64),
        ("resnet-18-unnormalised", 3, 64),
    ],
)
def test_a_pass_costs_what_torch_counts(architecture, channels, side):
    info = DatasetInfo("", tuple(map(str, range(10))), (channels, side, side), (0.5,) * channels, (0.5,) * channels)
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        build_model(architecture, info).eval()(torch.zeros(1, channels, side, side))
    assert forward_of(architecture, channels, side) == pytest.approx(counted.get_total_flops(), rel=1e-3)


@pytest.mark.parametrize(
    ("side", "network"),
    [
        (32, {"channels": 128, "multipliers": (2, 2, 2), "blocks": 4, "attention": (16,)}),
        (32, {"channels": 32, "multipliers": (1, 2, 4), "blocks": 1, "attention": ()}),
        (16, {"channels": 16, "multipliers": (1, 2), "blocks": 2, "attention": (16, 8)}),
    ],
)
def test_an_evaluation_of_a_diffusion_model_costs_what_torch_counts(side, network):
    info = DatasetInfo("", tuple(map(str, range(10))), (3, side, side), (0.5,) * 3, (0.5,) * 3)
    settings = EDMConfig(augment=0.0, **network)
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        model = unet_of(settings, info, rng_for(0)).eval()
        model(torch.zeros(1, 3, side, side), torch.zeros(1), torch.zeros(1, dtype=torch.int64))
    assert unet_flops(side, **network) == pytest.approx(counted.get_total_flops(), rel=1e-3)
    assert settings.evaluation_flops(side) == pytest.approx(counted.get_total_flops(), rel=1e-3)
    assert EDMConfig(network="ncsn++", channels=64).evaluation_flops(side) is None


def test_an_unknown_network_has_no_cost():
    assert forward_of("vgg-16") is None
    assert cost_of(override(RECIPES[CUTMIX_DDPM], ["train.architecture=resnet-101"])) is None
    assert cost_of(override(RECIPES[CUTMIX_DDPM], ["generators.ddpm.channels=64"])) is None
    assert cost_of(override(RECIPES[CUTMIX_DDPM], ["data.name=npz"])) is None


@pytest.mark.parametrize("architecture", ["wrn-28-10", "wrn-34-10", "wrn-70-16", "wrn-82-8"])
def test_trades_costs_what_the_scaling_law_says(architecture):
    """7822 N D operations for ten steps; a pass of these networks is 288 to 291 N."""
    trades = TrainingConfig(architecture=architecture, schedule=PORTS.schedule)
    assert passes(trades) == 27
    assert passes(trades) * forward_of(architecture) == pytest.approx(FLOPS * parameters_of(architecture), rel=0.02)


def test_costs_of_known_runs():
    """EDM's own training is 200 million images of 3 x 42.4e9: 25.6 hours; DDPM's chain 1.244e13 an image."""
    edm = cost_of(RECIPES["wang2023/cifar10-linf-wrn-28-10-edm-1m"])
    assert edm.fit == pytest.approx(2.54e19, rel=0.01) and edm.fit / RATE / 3600 == pytest.approx(25.6, rel=0.01)
    assert edm.sample == pytest.approx(5e6 * 39 * 42.4e9)
    assert cost_of(RECIPES[CUTMIX_DDPM]).sample == pytest.approx(5e6 * 1.244e13)
    alone = cost_of(RECIPES["rebuffi2021/cifar10-linf-wrn-28-10-pad"])
    assert alone.fit == alone.sample == 0 and alone.flops == alone.train
    published = override(RECIPES[CUTMIX_DDPM], ['published={"ddpm":["a.npz"]}'])
    assert cost_of(published).flops == cost_of(RECIPES[CUTMIX_DDPM]).train


def test_models_and_arms_are_counted():
    one = cost_of(override(RECIPES[CUTMIX_DDPM], ["train.models=1"])).train
    labelling = cost_of(override(RECIPES[CUTMIX_DDPM], ["train.models=2"])).train - 2 * one
    assert -labelling == pytest.approx(3 * forward_of("wrn-28-10") * PAPER_LABELLER.schedule.total_images, rel=1e-9)


def release_of(recipe):
    """The published classifier of a row: of the same paper, data, norm, network, and figures."""
    paper = re.search(r"arXiv:(\d+\.\d+)", recipe.reported.where)[1]
    stronger = recipe.reported.autoattack or recipe.reported.robust
    return [
        release
        for release in RELEASES.values()
        if release.paper == paper
        and release.data.split()[0] == recipe.data.name
        and release.threat.split(":")[0] == recipe.threat.norm
        and release.robust == stronger
    ]


def test_every_release_of_the_papers_is_a_row_with_its_figures():
    """The catalog and the rows were typed from different lists."""
    papers = {re.search(r"arXiv:(\d+\.\d+)", cited)[1] for cited in PAPERS.values()}
    found = [release for recipe in ROWS.values() if recipe.reported for release in release_of(recipe)]
    others = {"cifar10/linf/Wu2020Adversarial_extra", "cifar100/linf/Wu2020Adversarial"}  # of no table of the papers
    wanted = [release for full, release in RELEASES.items() if release.paper in papers and full not in others]
    assert [release for release in wanted if release not in found] == []
    for recipe in ROWS.values():
        for release in release_of(recipe) if recipe.reported else []:
            known = recipe.train.architecture.replace("-unnormalised", "")
            assert known == release.architecture, recipe.name
            two_places = recipe.name.endswith("wrn-28-10-cutmix") and recipe.data.name == "cifar10"
            assert recipe.reported.clean == (86.22 if two_places else release.clean), recipe.name


def test_rows_are_the_papers_runs():
    mixed = RECIPES[CUTMIX_DDPM]
    assert mixed.train.schedule.steps == 39_062 and mixed.train.schedule.peak_lr == 0.4
    # emulated_workers=4 in the official code, with and without generated images
    official = [recipe for name, recipe in ROWS.items() if name.startswith(("rebuffi2021", "gowal20"))]
    assert {recipe.train.repeats for recipe in official} == {4}
    assert mixed.train.repeats == 4 and mixed.train.real_share == 0.3 and mixed.keep.per_class == 100_000
    assert RECIPES["rebuffi2021/cifar100-linf-wrn-28-10-ddpm"].keep.per_class == 10_000
    assert RECIPES["rebuffi2021/cifar10-linf-wrn-28-10-pad"].train.schedule.decay == "step"
    assert "flip" not in RECIPES["rebuffi2021/svhn-linf-wrn-28-10-cutmix"].train.augment
    wang = RECIPES["wang2023/cifar10-linf-wrn-28-10-edm-20m"]
    assert wang.train.schedule.total_images == pytest.approx(120e6, rel=1e-4) and wang.labels == "condition"
    long = RECIPES["bartoldson2024/cifar10-linf-wrn-94-16-edm-300m"]
    first, last = long.arms["edm"].phases
    seen = long.train.schedule.total_images
    assert seen == pytest.approx(500e6, rel=1e-5)
    assert first.until * seen == pytest.approx(300e6, rel=1e-5) and last.real_share == 0.125


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_made_tiny(name):
    recipe = RECIPES[name]
    tiny = scaled(recipe, "tiny")
    check_recipe(tiny)
    assert from_content(json.loads(json.dumps(tiny.to_json())), name) == tiny
    assert tiny.threat == recipe.threat and list(tiny.arms) == list(recipe.arms) and tiny.labels == recipe.labels
    for setting in ("augment", "real_share", "repeats", "smooth", "ema_decay", "ema_start", "awp"):
        assert getattr(tiny.train, setting) == getattr(recipe.train, setting)
    assert tiny.train.loss == recipe.train.loss.smallest()
    assert tiny.train.schedule.decay == recipe.train.schedule.decay
    assert {key: fit.kind for key, fit in recipe.generators.items()}.items() <= {
        key: fit.kind for key, fit in tiny.generators.items()
    }.items()
    assert tiny.reported is None and tiny.data.name == "digits"
    small = tiny.train.schedule.total_images * passes(tiny.train) * forward_of(tiny.train.architecture, 3, 8)
    assert small < 3e12


def test_tiny_takes_the_data_that_are_given():
    recipe = override(RECIPES["rebuffi2021/cifar100-linf-wrn-28-10-ddpm"], ["data.path=somewhere"])
    tiny = scaled(recipe, "tiny")
    assert tiny.data.name == "cifar100" and tiny.data.path == "somewhere" and tiny.data.resize == 8
    assert tiny.data.train == 1000
    with pytest.raises(ValueError, match="unknown scale 'huge'; known: tiny"):
        scaled(recipe, "huge")


def test_the_command_line_knows_rows(robustgen):
    code, said, _ = robustgen("run", CUTMIX_DDPM, "--dry-run")
    assert code == 0 and "into runs/rebuffi2021-cifar10-linf-wrn-28-10-cutmix-ddpm," in said
    assert "reported  87.33 / 60.73 AA+MT" in said and "cost      8.9e+19 FLOPs, 89 h at 277 TFLOP/s" in said
    code, said, _ = robustgen("run", CUTMIX_DDPM, "--scale", "tiny", "--set", "train.loss.beta=2", "--dry-run")
    assert code == 0 and "cutmix-ddpm-tiny," in said and "reported" not in said
    code, said, _ = robustgen("show", CUTMIX_DDPM, "--scale", "tiny", "--set", "train.loss.beta=2")
    assert re.search(r"train\.loss\.beta +2\.0", said) and re.search(r"train\.architecture +wrn-10-1", said)
    code, _, said = robustgen("run", CUTMIX_DDPM + "x")
    assert code == 2 and f"did you mean {CUTMIX_DDPM}" in said and "recipes of papers" in said and len(said) < 700
    code, _, said = robustgen("run", "digits", "--scale", "small")
    assert code == 2 and "unknown scale 'small'; known: tiny" in said


def test_the_list_groups_rows_by_paper(robustgen):
    _, said, _ = robustgen("list", "recipes")
    lines = said.splitlines()
    for cited in PAPERS.values():
        assert sum(line.startswith(cited) for line in lines) == 1
    named = {line.split()[0] for line in lines if line}
    assert {name for name in RECIPES if "/sweep/" not in name} <= named
    assert any(re.match(r"rebuffi2021/sweep/ddpm-share-\.\.\. +0, 0.1, 0.3", line) for line in lines)


def test_published_images_stand_in_for_a_generator(tmp_path):
    """They are imported, keep their labels and are all used; nothing is fitted or drawn."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (30, 8, 8, 1), dtype=np.uint8), np.arange(30) % 10
    write_npz(tmp_path / "set.npz", images, labels)
    recipe = override(
        RECIPES["digits-smoke"],
        [f'published={{"edm":["{tmp_path / "set.npz"}"]}}', "labeller.schedule.total_images=128"],
    )
    run = RunDir(tmp_path / "run")
    plan = {stage.name: stage for stage in stages(recipe, run)}
    assert "import edm" in plan and not {"fit edm", "sample edm"} & set(plan) and "fit gaussian" in plan
    assert plan["train edm-0"].needs[0] == "keep edm" and plan["label edm"].needs == ("import edm", "labeller")
    for name in ("import edm", "labeller", "label edm", "keep edm"):
        plan[name].stage("cpu", lambda *told: None)
    proxies = ProxySet(run.proxy("edm"))
    assert (proxies.column("label") == labels).all() and len(proxies.kept()) == 30
    assert (proxies.images(np.arange(30)) == images).all()
    missing = override(recipe, ['published={"edm":["nowhere.npz"]}'])
    with pytest.raises(ValueError, match=r"published\.edm: nowhere\.npz does not exist"):
        {stage.name: stage for stage in stages(missing, RunDir(tmp_path / "other"))}["import edm"].stage("cpu", None)
    with pytest.raises(ValueError, match=r"published\.edm must name at least one file"):
        override(recipe, ['published={"edm":[]}'])


def test_labels_may_be_the_classes_asked_for(tmp_path):
    plan = {
        name: {stage.name: stage for stage in stages(RECIPES[name], RunDir(tmp_path))}
        for name in (CUTMIX_DDPM, "wang2023/cifar10-linf-wrn-28-10-edm-1m")
    }
    said = [plan[name][stage].stage.labels for name, stage in zip(plan, ("label ddpm", "label edm"), strict=True)]
    assert said == ["predicted", "condition"]


def test_the_page_of_rows_is_as_the_recipes_are():
    place = REPOSITORY / "docs" / "make_rows.py"
    spec = importlib.util.spec_from_file_location("make_rows", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.written(module.PAGE.read_text()) == module.PAGE.read_text(), "run: python docs/make_rows.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        CUTMIX_DDPM,
        "rebuffi2021/cifar10-linf-wrn-28-10-vdvae",
        "sehwag2022/cifar10-linf-resnet-18-ddpm",
        "bartoldson2024/cifar10-linf-wrn-94-16-edm-300m",
        "gowal2020/cifar10-linf-wrn-70-16-80m-ti",
    ],
)
def test_a_sample_of_rows_runs_tiny(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "robustgen", "run", name, "--scale", "tiny"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs" / f"{name.replace('/', '-')}-tiny" / "report.html").exists()
