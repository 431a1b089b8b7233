"""A page as a browser shows it."""

import re
import shutil
import subprocess

import pytest

WORDS_OF_THE_NETWORK = ("http://", "https://", 'src="/', "<script ", "@import", "url(h", "url(/")

CHECK = """<script>
window.onload = () => {
  const figures = [...document.querySelectorAll("figure > svg, figure > img")];
  const seen = figure => figure.getBoundingClientRect().width > 50;
  const shown = figures.filter(figure => seen(figure) && (figure.tagName !== "IMG" || figure.naturalWidth > 0));
  const sizes = [figures.length, shown.length, document.documentElement.scrollWidth, innerWidth];
  parent.postMessage(sizes.join(" "), "*");
};
</script>"""
"""Tells the frame around the page what can be seen of it."""

FRAME = """<title>nothing</title><script>window.onmessage = told => { document.title = told.data; };</script>
<iframe src="page.html" style="width: WIDTHpx; height: 1500px; border: 0"></iframe>"""
"""A browser without a screen makes no window narrower than 500 pixels, but a frame in it."""


def shown(html, folder, width):
    """(figures, figures that are visible, width of the page, width of the window) in headless Chromium; skips where it
    is absent. The page must not write to the console."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium")
    (folder / "page.html").write_text(html.replace("</body>", CHECK + "</body>"))
    around = folder / "frame.html"
    around.write_text(FRAME.replace("WIDTH", str(width)))
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1500,2000",
            "--enable-logging=stderr", "--v=0", f"--user-data-dir={folder / 'browser'}", "--dump-dom",
            around.as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    sizes = re.search(r"<title>(\d+) (\d+) (\d+) (\d+)</title>", done.stdout)
    assert sizes, done.stdout[:500] + done.stderr[-500:]
    return tuple(map(int, sizes.groups()))
