"""What a report says first, and how one moves on the page."""

import math
import re
import shutil
import subprocess

import pytest
from browser import shown

from robustgen.records.tables import Table
from robustgen.report import headline
from robustgen.report import page as module
from robustgen.report.headline import (
    ArmResult,
    _shown,
    headline_caption,
    headline_figure,
    short_sentences,
    title_of,
)
from robustgen.report.page import render_page, template
from robustgen.report.questions import by_question

BASE = ArmResult("real only", 0.494, (0.47, 0.52), seeds=(0.48, 0.50, 0.502))
MORE = ArmResult("real + edm", 0.585, (0.56, 0.61), 0.092, (0.07, 0.113))
MOST = ArmResult("real + vdvae", 0.610, (0.60, 0.62), 0.117, (0.089, 0.144))
UNSURE = ArmResult("real + gaussian", 0.62, (0.5, 0.7), 0.126, (-0.01, 0.25))
LESS = ArmResult("real only, augment=cutmix", 0.354, (0.3, 0.4), -0.14, (-0.2, -0.08))


@pytest.mark.parametrize(
    ("rows", "title"),
    [
        ([BASE], "real only: 49.4 % robust"),
        ([BASE, MORE, MOST], "real + vdvae: 11.7 points more robust than real only"),
        ([BASE, MORE, UNSURE, LESS], "real + edm: 9.2 points more robust than real only"),
        ([BASE, LESS], "No arm is significantly more robust than real only"),
        ([BASE, UNSURE, LESS], "No arm is significantly more robust than real only"),
        ([BASE, MORE._replace(gain_interval=(math.nan, math.nan))], "real + edm: 58.5 % robust, real only: 49.4 %"),
    ],
)
def test_the_title_is_the_largest_gain_that_is_significant(rows, title):
    assert title_of(rows) == title


def test_the_arm_of_the_title_is_shown_among_many():
    """It is neither one of the most robust arms nor the best one with changed settings."""
    rows = {"real": BASE, **{f"g{k}": UNSURE._replace(robust=0.6 + k / 100) for k in range(9)}}
    rows |= {"wide": UNSURE._replace(robust=0.7), "sure": MORE}
    changes = {"wide": ["real_share=0.1"], "sure": ["real_share=0.5"]}
    recipe = {"arms": {name: {"changes": changes.get(name, [])} for name in rows}}
    found = _shown(recipe, rows, "real")
    assert len(found) == headline.MOST and found[0] == BASE and MORE in found and rows["g8"] in found
    assert title_of(found) == "real + edm: 9.2 points more robust than real only"
    assert _shown(recipe, {"real": BASE}, "real") == [BASE]


def test_sentences_are_the_baseline_and_the_largest_gains():
    assert short_sentences([BASE, LESS, MORE, MOST]) == [
        "real only: 49.4 % robust on average over 3 seeds.",
        "real + vdvae: 61.0 % robust, +11.7 points (+8.9 to +14.4) over real only.",
        "real + edm: 58.5 % robust, +9.2 points (+7.0 to +11.3) over real only.",
    ]
    assert short_sentences([BASE]) == ["real only: 49.4 % robust on average over 3 seeds."]


def test_the_figure_has_a_row_and_a_number_for_each_arm():
    drawn = headline_figure([BASE, MORE, UNSURE])
    assert all(text in drawn for text in ("real only", "real + edm", "+9.2 (+7.0 to +11.3)", "+12.6 (-1.0 to +25.0)"))
    assert "over seeds" in headline_caption([BASE]) and "gains" not in headline_caption([BASE])
    assert "<svg" in headline_figure([BASE])


def arm(proxy=None, *changes):
    return {"proxy": proxy, "changes": list(changes)}


def test_arms_stand_under_the_question_that_they_answer():
    arms = {
        "real": arm(),
        "edm": arm("edm"),
        "ddpm": arm("ddpm"),
        "edm-0.1": arm("edm", "real_share=0.1"),
        "edm-0.9": arm("edm", "real_share=0.9"),
        "cutmix": arm(None, "augment=crop-4+cutmix"),
        "cutmix-raw": arm(None, "augment=crop-4+cutmix", "ema_decay=0"),
        "score": arm("edm", "loss=plain", "real_share=0"),
        "near": arm("edm", "loss.attack.start=normal"),
        "slow": arm("edm", "schedule.decay=one-cycle"),
    }
    recipe = {"arms": arms, "train": {"loss": {"kind": "trades"}}}
    groups = by_question(recipe, list(arms), "real")
    assert groups == {
        "Which generated images": ["real", "edm", "ddpm"],
        "Which share of real images": ["real", "edm-0.1", "edm-0.9"],
        "Augmentation and weight averaging": ["real", "cutmix", "cutmix-raw"],
        "Other settings": ["real", "slow", "score", "near"],
    }
    arms |= {
        "mart": arm("edm", "loss=mart", "beta=5"),
        "noisy": arm("edm", "loss=stability"),
        "more": arm() | {"train_images": 500},
        "more-edm": arm("edm") | {"train_images": 500},
    }
    groups = by_question(recipe, list(arms), "real")
    assert groups["Loss and inner attack"] == ["real", "near", "mart"]
    assert groups["Standard training and training under noise"] == ["real", "score", "noisy"]
    assert groups["How many real images"] == ["real", "more", "more-edm"]
    assert groups["Which generated images"] == ["real", "edm", "ddpm"]
    assert by_question(recipe, ["real", "edm", "slow"], "real") == {"": ["real", "edm", "slow"]}


TABLE = Table(("arm", "robust %", "gain"), (("b", "9.5", "+1.0"), ("a", "10.1", ""), ("c", "8,000.0", "-2.0")))
SORTED = """<script>
window.onload = () => {
  const first = row => row.cells[0].textContent;
  const order = () => [...document.querySelectorAll("tbody tr")].map(first).join("");
  const heads = document.querySelectorAll("th");
  let found = order();
  for (const column of [1, 1, 2, 0]) { heads[column].click(); found += " " + order(); }
  document.title = found;
};
</script>"""


def page_of(table):
    """A page of headings and a table in the frame of all pages."""
    body = template("frame.html.j2").environment.from_string(
        '{% extends "frame.html.j2" %}{% from "macros.html.j2" import grid %}{% block body %}<h2>Results</h2>'
        "<h2>Red flags</h2><h2>Results</h2>{{ grid(table) }}{% endblock %}"
    )
    original, module.template = module.template, lambda name: body
    try:
        return render_page("any", title="robustgen: x", subtitle="words", table=table)
    finally:
        module.template = original


def test_headings_are_in_the_contents_with_places_of_their_own():
    page = page_of(TABLE)
    assert re.findall(r'<h2 id="([^"]+)">', page) == ["results", "red-flags", "results-2"]
    assert re.findall(r'<a href="#([^"]+)">', page) == ["results", "red-flags", "results-2"]
    assert page.lstrip().startswith("<!doctype html>") and "<title>robustgen: x</title>" in page


def test_long_tables_are_folded():
    assert "Table of 15 rows" in page_of(Table(("a",), (("1",),) * 15))
    assert "Table of" not in page_of(TABLE)


def test_a_click_on_a_heading_sorts(tmp_path):
    """By number, descending first, empty cells last; words by the alphabet."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium")
    assert shown(page_of(TABLE), tmp_path, 390)[2] <= 390
    (tmp_path / "sorted.html").write_text(page_of(TABLE).replace("</body>", SORTED + "</body>"))
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'other'}", "--dump-dom",
         (tmp_path / "sorted.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = re.search(r"<title>(.*?)</title>", done.stdout)
    assert found is not None and found[1] == "bac cab bac bca cba"
