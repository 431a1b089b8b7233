"""How long `robustgen --help` takes, beside an empty Python.

    python benchmarks/startup.py

Aim: under 0.4 s.
"""

from __future__ import annotations

import subprocess
import sys

from timing import interleaved, record


def main() -> None:
    def run(*arguments: str):
        return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    works = {
        "python": run("-c", "pass"),
        "robustgen --help": run("-m", "robustgen", "--help"),
        "robustgen run --help": run("-m", "robustgen", "run", "--help"),
        "robustgen list recipes": run("-m", "robustgen", "list", "recipes"),
        "import torch": run("-c", "import torch"),
    }
    rows: list[dict[str, object]] = [
        {"command": name, "seconds": round(seconds, 3)} for name, seconds in interleaved(works, "cpu", 7).items()
    ]
    record("startup", "cpu", rows)


if __name__ == "__main__":
    main()
