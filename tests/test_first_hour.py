"""The doors of the README, as somebody opens them who has never seen the project."""

import re
import shlex

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from conftest import REPOSITORY
from robustgen.records.verdicts import Verdicts

NET = """
from torch import nn


def make(width=16):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
"""


def door(name: str) -> list[list[str]]:
    """Words of the commands of a door, without `robustgen`."""
    text = (REPOSITORY / "README.md").read_text().split(f"**{name}**")[1].split("\n**")[0].split("\n##")[0]
    lines = [line.split("  #")[0] for line in re.findall(r"^    (robustgen .*)$", text, re.MULTILINE)]
    assert len(lines) == 3
    return [shlex.split(line)[1:] for line in lines]


def test_from_the_readme_to_the_page_of_ones_own_network(robustgen, tmp_path):
    digits = load_digits()
    pixels, labels = (digits.images * 255 / 16).astype(np.uint8), digits.target
    (tmp_path / "net.py").write_text(NET)
    names: dict = {}
    exec(NET, names)
    torch.manual_seed(0)
    net, images = names["make"](), torch.from_numpy(pixels[100:] / 255).float()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(100):
        loss = torch.nn.functional.cross_entropy(net(images), torch.from_numpy(labels[100:]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    np.savez(tmp_path / "images.npz", images=pixels[:20], labels=labels[:20])

    said = []
    for words in door("Audit a model"):
        code, out, err = robustgen(*words)
        assert code == 0, err
        said.append(out)
    verdicts = Verdicts.load(tmp_path / "audit.npz")
    assert verdicts.finished and len(verdicts) == 20 and verdicts.clean_accuracy.value > 0.8
    robust = f"Robust accuracy {verdicts.robust_accuracy}"
    assert robust in said[1] and "apgd-ce" in said[1]
    assert robust in (tmp_path / "audit.html").read_text()


def test_the_plan_for_ones_own_photos_has_reasons(robustgen, tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        for number in range(30):
            path = tmp_path / "photos" / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    dry, whole, judged = door("Train on your images")
    assert dry == [*whole, "--dry-run"] and judged[1] == "runs/auto/best"
    code, out, err = robustgen(*(word.replace("2h", "1m") for word in dry))
    assert code == 0, err
    assert all(f"\n{choice} " in out for choice in ("size", "network", "training", "generator", "evaluation"))
    assert not (tmp_path / "runs").exists()


def test_a_papers_row_can_be_listed_and_tried(robustgen):
    listed, tiny, full = door("Reproduce a paper's row")
    code, out, _ = robustgen(*listed)
    assert code == 0 and full[1] in out
    for words in (tiny, full):
        code, out, err = robustgen(*words, "--dry-run")
        assert code == 0 and "to do" in out, err
