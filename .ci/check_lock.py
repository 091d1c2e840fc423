"""Fails where a lock file lacks what pyproject.toml asks for: a missing package, or a version out of range."""

import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


def name_of(text: str) -> str:
    """PEP 503: case and separators do not matter."""
    return re.sub(r"[-_.]+", "-", text).lower()


def locked(path: Path) -> dict[str, str]:
    """Name → version of every pinned line."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", path.read_text(), re.M)
    return {name_of(name): version for name, version in pins}


def main() -> int:
    """Print each difference; 1 where there is one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    cpu = [*project["dependencies"], *(r for name in ("train", "engines", "azure", "dev") for r in extras[name])]
    wanted = {"cpu": cpu, "gpu": [*cpu, *extras["gpu"]]}
    wrong = []
    for lock, requirements in wanted.items():
        path = ROOT / "requirements" / f"{lock}.lock"
        have = locked(path)
        for requirement in map(Requirement, requirements):
            version = have.get(name_of(requirement.name))
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                wrong.append(f"{path.name}: {requirement} is asked for, {version or 'nothing'} is locked")
    print("\n".join(wrong) or "lock files hold what pyproject.toml asks for")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
