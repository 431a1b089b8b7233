import json

import pytest

from robustgen.config.loading import from_content, override, read_recipe
from robustgen.config.recipe import Recipe, SelectionConfig, ThreatConfig
from robustgen.config.sampler import SamplerConfig
from robustgen.config.training import ScheduleConfig
from robustgen.pipeline.graph import check_recipe
from robustgen.recipes import RECIPES

DIGITS = RECIPES["digits"]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json_and_names_what_exists(name):
    recipe = RECIPES[name]
    assert from_content(json.loads(json.dumps(recipe.to_json())), name) == recipe
    assert recipe.name == name and recipe.summary
    check_recipe(recipe)


def test_settings_are_changed_by_dotted_names():
    changed = override(
        DIGITS,
        ["train.loss.beta=5", "threat=l2:128/255", "generators.edm.multipliers=1,2,2", "data.train=none", "seed=3"],
    )
    assert changed.train.loss.beta == 5 and changed.threat.eps == 128 / 255 and changed.threat.norm == "l2"
    assert changed.generators["edm"].multipliers == (1, 2, 2)
    assert changed.data.train is None and changed.seed == 3
    assert override(DIGITS, ["threat.eps=8/255"]).threat.eps == 8 / 255
    assert override(DIGITS, []) == DIGITS
    named = override(DIGITS, ["train.augment=none", "train.smooth=none", "labeller.augment=none"])
    assert (named.train.augment, named.train.smooth, named.labeller.augment) == ("none", "none", "none")


def test_entries_of_open_ended_settings_are_added_changed_and_removed():
    special = override(DIGITS, ["keep.special.edm.rule=balanced", "keep.special.edm.per_class=5"]).keep.special
    assert special == {"edm": SelectionConfig(rule="balanced", per_class=5)}
    drawn = override(DIGITS, ["sampling.special.edm.evaluations=9"])
    assert drawn.sampling.special == {"edm": SamplerConfig(evaluations=9)}
    more = override(DIGITS, ['arms.half={"proxy": "edm", "changes": ["real_share=0.5"]}', 'published.web=["a.npz"]'])
    assert more.arms["half"].changes == ("real_share=0.5",) and more.published["web"] == ("a.npz",)
    assert override(more, ["arms.half=none", "published.web=none"]) == DIGITS


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        (
            "train.betta=5",
            r"setting train.betta; did you mean train.loss.beta\? known under train: architecture",
        ),
        ("trian.beta=5", r"unknown setting trian.beta; did you mean train\? known: name"),
        ("generators.gan.steps=5", "known under generators: gaussian, edm"),
        (
            "arms.rael=none",
            r"unknown setting arms.rael; did you mean arms.real\? known under arms: real, gaussian, edm",
        ),
        ("generators.edm.channels=x", "--set: generators.edm.channels: input should be a valid integer"),
        ("arms.edm=none,none", "arms.edm: input should be a valid dictionary"),
        ("arms.rael.proxy=edm", r"did you mean arms.real\?"),
        ("arms.half={proxy: edm}", r"known under arms: .*; a new one is JSON such as .*, got '{proxy: edm}'"),
        ("keep.special.gan.rule=all", "keep.special.*gan"),
        ("keep.special.edm.ruel=all", r"did you mean keep.special.edm.rule\?"),
        ("train.loss.beta=five", "train.loss.beta: expected a number or a fraction such as 8/255, got 'five'"),
        ("train.loss.beta=-1", "train.loss.beta: input should be greater than or equal to 0, got -1"),
        ("train.loss=tradez", "train.loss: unknown loss 'tradez'; known: plain, adversarial, trades, .*, macer$"),
        ("train.loss.sigma=1", "unknown setting train.loss.sigma of the loss trades; known under train.loss: kind, "),
        ("train.models=1.5", "train.models"),
        ("train.schedule.batch_size=100", r"train.schedule: total_images \(30720\) must be a multiple"),
        ("threat=linf:8", r"threat: eps 8 in linf exceeds .* did you mean 8/255\?"),
        ("threat=0.1", "threat"),
        ("data.validation=0", "early stopping needs validation images"),
        ("beta", "expected SETTING=VALUE"),
        ("=5", "expected SETTING=VALUE"),
        ("train=5", "train: input should be a valid dictionary"),
        ("labeller.loss=trades", "labeller.loss must be plain"),
        ('arms={"x":{"proxy":"gan"}}', "names generator 'gan', which the recipe does not have; it has: gaussian, edm"),
    ],
)
def test_wrong_settings_are_one_clear_line(assignment, message):
    with pytest.raises(ValueError, match=message) as caught:
        override(DIGITS, [assignment])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.architecture=wrn-28", "wrong number of sizes"),
        ("train.architecture=vgg-16", "unknown architecture 'vgg-16'; known: wrn-10-1"),
        ("train.architecture=wrn-11-1", "must be 10, 16, 22"),
        ("train.augment=blur", "unknown augmentation 'blur'; known: none"),
        ("sampling.solver=rk4", "unknown solver 'rk4'; known: euler"),
        ('sampling={"solver":"heun","evaluations":10}', "Heun makes 2 a step"),
        ("evaluation.suite=best", r"unknown suite 'best'; known: autoattack"),
        ("data.name=kmnist", "unknown data set 'kmnist'; known: digits"),
    ],
)
def test_names_that_no_family_knows_are_found_before_the_work(assignment, message):
    with pytest.raises(ValueError, match=message):
        check_recipe(override(DIGITS, [assignment]))


def test_a_recipe_of_ones_own_starts_from_a_known_one(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "base: digits\nthreat: linf:0.1\ntrain:\n  loss: {beta: 5}\n"
        "  schedule: {peak_lr: 1e-1}\narms:\n  more: {proxy: edm}\n"
    )
    mine = read_recipe(path, RECIPES)
    assert mine.name == "mine" and mine.train.loss.beta == 5 and mine.threat.eps == 0.1
    assert mine.train.schedule == DIGITS.train.schedule.model_copy(update={"peak_lr": 0.1})
    assert list(mine.arms) == [*DIGITS.arms, "more"]
    path.write_text(json.dumps(DIGITS.to_json()))
    assert read_recipe(path, RECIPES) == DIGITS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("base: digit", "unknown base 'digit'; known: digits"),
        ("base: digits\ntrain: {betta: 5}", "did you mean train.loss.beta"),
        ("- a list", "expected settings by name, got list"),
        ("a: [", "cannot be read as a recipe"),
        ("name: x", "data: field required"),
    ],
)
def test_a_bad_recipe_file_is_one_clear_line(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_recipe(path, RECIPES)
    with pytest.raises(ValueError, match="cannot be read"):
        read_recipe(tmp_path / "none.yaml", RECIPES)


def test_epochs_are_those_of_the_papers():
    """400 epochs of 50,000 at 1024 are 19,531 steps, 800 are 39,062; of the ports' 512: 39,062."""
    for epochs, batch, steps in ((400, 1024, 19_531), (800, 1024, 39_062), (400, 512, 39_062), (0.5, 100, 250)):
        assert ScheduleConfig(total_images=f"{epochs} epochs", batch_size=batch, peak_lr=0.1).steps == steps
    longer = override(RECIPES["digits"], ["train.schedule.total_images=2 epochs"])
    assert longer.train.schedule.total_images == 100_000 // 128 * 128
    with pytest.raises(ValueError, match=r"train\.schedule\.total_images: .*got '2 weeks'"):
        override(RECIPES["digits"], ["train.schedule.total_images=2 weeks"])


def test_recipes_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        DIGITS.seed = 3
    assert ThreatConfig.model_validate("linf:8/255").eps == 8 / 255
    assert ScheduleConfig(total_images=20_480_000, batch_size=512, peak_lr=0.2).steps == 40_000
    assert isinstance(DIGITS, Recipe)
