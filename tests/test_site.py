"""The documentation site: every public module has a page, the guides are found, and it builds without a warning."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="MkDocs (the extra `docs`) is not installed")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import site_hooks  # noqa: E402


def pages(nav):
    """All pages of a navigation."""
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in pages(part)]


def test_every_module_has_one_page():
    class Config:
        nav = None

    found = pages(site_hooks.on_config(Config()).nav)
    assert len(found) == len(set(found))
    modules = {
        "reference/" + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") + ".md"
        for path in (ROOT / "tflens").rglob("*.py")
        if not path.name.startswith("cli") and (not path.name.startswith("_") or path.name == "__init__.py")
    }
    assert {page for page in found if page.startswith("reference/")} == modules
    assert {page for page in found if not page.startswith("reference/")} == {
        "index.md",
        *(f"examples/{path.stem}.md" for path in (ROOT / "examples").glob("*.py")),
        *(path.name for path in (ROOT / "docs").glob("*.md")),
    }


def test_a_notebook_is_a_page():
    text = "# %% [markdown]\n# # Title\n#\n# Words.\n\n# %%\na = 1  # %\n\n# %% [markdown]\n# More.\n"
    assert site_hooks.notebook_page(text) == "# Title\n\nWords.\n\n```python\na = 1  # %\n```\n\nMore.\n"


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_fetches_nothing(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    start = (tmp_path / "index.html").read_text()
    assert "Strong gravitational lensing" in start
    assert 'href="checks.html"' in start
    assert 'href="examples/quickstart.html"' in start
    for page in tmp_path.rglob("*.html"):
        text = page.read_text()
        for place in ('src="http', 'src="//', '<link rel="stylesheet" href="http', "unpkg.com", "fonts.googleapis"):
            assert place not in text, f"{page.name} fetches from elsewhere: {place}"
    assert "&gt;&gt;&gt; " in (tmp_path / "reference/tflens.mass.power_law.html").read_text()
