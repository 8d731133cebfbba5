"""Print the lowest versions that pyproject.toml allows, for pip install -c."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
for requirement in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
    found = re.match(r"([\w-]+)>=([\w.]+)", requirement)
    if found:
        print(f"{found[1]}=={found[2]}")
