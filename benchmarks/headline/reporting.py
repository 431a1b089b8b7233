"""The run as a table, as JSON and as a card of the weights: nothing here but what the pieces say."""

from __future__ import annotations

from typing import Any

from pieces import Piece
from place import Place
from plan import ARMS, Plan
from stages import outcomes

from robustgen.records.tables import Table
from robustgen.stats.intervals import PairedDifference, Proportion
from robustgen.storage.files import atomic_write, write_json
from robustgen.storage.provenance import environment

TITLES = {"generated": "real + generated", "real": "real alone"}


def report(plan: Plan, place: Place, suite: str) -> None:
    """Write `headline-SCALE.json` and `.md`: what was measured; where there is an outcome that and `weights.md` too."""
    measured = place.find("measure")
    content: dict[str, Any] = {
        "device": measured.about["device"] if measured else "not measured",
        "environment": measured.about["environment"] if measured else {},
        "reported_by": environment(),
        "rows": measured.about["rows"] if measured else [],
    }
    lines = [f"Device: {content['device']}."]
    if place.find(f"verdicts-{suite}") is not None or measured is None:
        found, said = _outcome(place, suite)
        content, lines = content | found, [*said, "", *lines]
    print("\n".join(lines))
    if measured is not None:
        lines += ["", _rates(content["rows"]).markdown()]
    write_json(place.into / f"headline-{plan.name}.json", content)
    _write(place, f"headline-{plan.name}.md", lines)


def _outcome(place: Place, suite: str) -> tuple[dict[str, Any], list[str]]:
    """What both arms came to, for the JSON and as lines; writes the card of the weights."""
    judged = place.needed(f"verdicts-{suite}", "evaluate")
    classifiers = {arm: place.needed(f"classifier-{arm}", f"train --arm {arm}") for arm in ARMS}
    for arm, piece in classifiers.items():
        if judged.of[arm] != piece.sha256:
            raise ValueError(f"{judged.folder} judges another {piece.name}; run evaluate again")
    found = outcomes(judged, place.work / "report")
    rows, results = [], {}
    for arm, piece in classifiers.items():
        clean, robust = (Proportion(int(found[arm][kind].sum()), len(found[arm][kind])) for kind in ("clean", "robust"))
        cost = f"{piece.about['images']:,} in {piece.about['seconds']:.0f} s"
        rows.append((TITLES[arm], piece.about["settings"]["architecture"], cost, str(clean), str(robust)))
        results[arm] = {"clean": [clean.count, clean.total], "robust": [robust.count, robust.total]}
    gain = PairedDifference.of(found["generated"]["robust"], found["real"]["robust"])
    suite_name = f"{judged.about['suite']}, {judged.about['threat']}"
    table = Table(("training images", "network", "seen", "clean", f"robust ({suite_name})"), tuple(rows))
    generator, proxies = place.needed("generator", "fit"), place.find("proxies")
    _write(place, "weights.md", _weights(generator, classifiers))
    content = {
        "results": results,
        "gain": {"gained": gain.gained, "lost": gain.lost, "images": gain.total, "points": round(100 * gain.value, 2)},
        "seconds": {piece.name: piece.about["seconds"] for piece in (generator, *classifiers.values(), judged)},
        "proxies": proxies.about if proxies else None,
        "generator": _card(generator),
        "classifiers": {arm: _card(piece) for arm, piece in classifiers.items()},
    }
    spent = f"{generator.about['images']:,} in {generator.about['seconds']:.0f} s"
    return content, [
        table.markdown(),
        "",
        f"Gain from generated images, same {gain.total} test images: {gain}.",
        f"The generator saw {spent}. {_proxies(proxies)}",
    ]


def _write(place: Place, name: str, lines: list[str]) -> None:
    with atomic_write(place.into / name) as file:
        file.write(("\n".join(lines) + "\n").encode())


def _card(piece: Piece) -> dict[str, Any]:
    left = ("checkpoint",)
    return {"sha256": piece.sha256, **{key: value for key, value in piece.about.items() if key not in left}}


def _proxies(piece: Piece | None) -> str:
    if piece is None:
        return "No generated images were noted."
    return f"{piece.about['images']:,} generated images, labelled by the class asked for."


def _rates(rows: list[dict[str, Any]]) -> Table:
    """What was measured; a rate that is no images a second stands in its own words."""
    shown = []
    for row in rows:
        what = " ".join(str(row[key]) for key in ("what", "network", "how", "precision") if key in row)
        size = ", ".join(f"{key} {row[key]}" for key in ("batch", "evaluations") if row.get(key))
        known = ("what", "network", "how", "precision", "batch", "evaluations", "solver", "took_s", "failed")
        rate = row.get("failed") or ", ".join(f"{key} {value}" for key, value in row.items() if key not in known)
        shown.append((what, size, rate))
    return Table(("work", "size", "measured"), tuple(shown))


def _weights(generator: Piece, classifiers: dict[str, Piece]) -> list[str]:
    lines = [
        "# Weights",
        "",
        "Safetensors, cut into parts: join `part-*.bin` in order. Matrices and convolutions in bfloat16, the rest in",
        "float32; the accuracies reported are those of exactly these rounded weights. Classifiers take images in",
        "[0, 1]; normalisation is inside.",
    ]
    for piece in (generator, *classifiers.values()):
        lines += [
            "",
            f"## {piece.name}",
            "",
            f"{piece.about['parameters']:,} parameters; trained on {piece.about['images']:,} images.",
        ]
        lines += [f"- `{part['file']}`, {part['bytes']:,} bytes, SHA-256 `{part['sha256']}`" for part in piece.parts]
    return lines
