"""The README's Python runs, and what it names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_python_of_the_readme_runs():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["logits"].shape == (256, 2)
    assert len(names["history"].history["loss"]) == 3


@pytest.mark.parametrize("readme", ["README.md", "csrc/README.md"])
def test_files_that_readmes_name_exist(readme):
    text = (ROOT / readme).read_text()
    named = set(re.findall(r"(?<![\w./*])((?:csrc|fastnn|tests|bench)/[\w./]+\w/?)", text))
    assert named and not [name for name in named if not (ROOT / name).exists()]


def test_house_shows_the_folders_as_they_are():
    """Indented names below csrc/ and fastnn/ in the picture are files or folders there, and no folder is left out."""
    picture = (ROOT / "README.md").read_text().partition("## The house")[2].partition("## Benchmarks")[0]
    folder, shown = None, {"csrc": set(), "fastnn": set()}
    for indent, name in re.findall(r"^    ( *)([\w.]+)(?=/? )", picture, re.M) + [("", "end")]:
        folder = name if not indent else folder
        if indent and folder in shown:
            assert (ROOT / folder / name).exists(), f"{folder}/{name} does not exist"
            shown[folder].add(name)
    for folder, names in shown.items():
        folders = {p.name for p in (ROOT / folder).iterdir() if p.is_dir() and not p.name.startswith(("_", "."))}
        assert folders <= names, f"not in the README's picture: {folder}/{sorted(folders - names)}"
