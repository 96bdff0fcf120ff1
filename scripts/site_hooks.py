"""What MkDocs needs to be told: README.md is the first page; examples and public modules have a page each."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
GUIDES = (
    "checks",
    "report",
    "monitoring",
    "fits",
    "exchange",
    "serving",
    "galaxies",
    "data",
    "physics",
    "benchmark",
    "reliability",
    "scale",
    "soak",
    "numerics",
)
EXAMPLES = ("quickstart", "own_lens", "own_galaxies", "mnist", "serving")
ROOMS = {
    "Lenses and light": ("mass", "light"),
    "Fits": ("inference",),
    "Galaxies": ("galaxies", "datasets"),
    "Serving": ("serving",),
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Builds the navigation: guides first, then the package, room by room."""
    pages = _modules()
    named = [room for rooms in ROOMS.values() for room in rooms]
    top = [name for name in pages if name.count(".") == 1 and not any(name == f"tflens.{room}" for room in named)]
    reference = [{"The usual path": _page("tflens")}]
    for title, rooms in ROOMS.items():
        inside = [n for n in pages if any(n == f"tflens.{r}" or n.startswith(f"tflens.{r}.") for r in rooms)]
        reference.append({title: [{_short(name): _page(name)} for name in inside]})
    reference.append({"The rest": [{_short(name): _page(name)} for name in top]})
    guides = [f"{name}.md" for name in GUIDES if (ROOT / "docs" / f"{name}.md").is_file()]
    examples = [f"examples/{name}.md" for name in EXAMPLES]
    config.nav = [{"Start": "index.md"}, {"Guides": guides}, {"Examples": examples}, {"Reference": reference}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are no files of docs/."""
    readme = re.sub(r"\]\(docs/", "](", (ROOT / "README.md").read_text())
    readme = re.sub(r"\]\(examples/(\w+)\.py\)", r"](examples/\1.md)", readme)
    files.append(File.generated(config, "index.md", content=readme))
    for name in EXAMPLES:
        text = (ROOT / "examples" / f"{name}.py").read_text()
        files.append(File.generated(config, f"examples/{name}.md", content=notebook_page(text)))
    for name in _modules():
        files.append(File.generated(config, _page(name), content=f"# `{name}`\n\n::: {name}\n"))
    return files


def notebook_page(text: str) -> str:
    """A script of cells as a page: text of the cells `# %% [markdown]`, code of the others."""
    parts = []
    for cell in text.split("# %%")[1:]:
        kind, _, content = cell.partition("\n")
        if "[markdown]" in kind:
            parts.append(re.sub(r"^# ?", "", content.strip(), flags=re.MULTILINE))
        else:
            parts.append(f"```python\n{content.strip()}\n```")
    return "\n\n".join(parts) + "\n"


def _modules() -> list[str]:
    """Public modules by name, packages before what is in them; commands have their own help."""
    found = []
    for path in sorted((ROOT / "tflens").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if not any(part.startswith("_") for part in name.split(".")) and not parts[-1].startswith(("cli", "__main__")):
            found.append(name)
    return sorted(found)


def _page(name: str) -> str:
    return f"reference/{name}.md"


def _short(name: str) -> str:
    return name.removeprefix("tflens.")
