"""The jars with which Spark reads bizllm's tables, put together from packages that PyPI and Debian have.

Iceberg's runtime for Spark, as `snowpark-connect-deps-iceberg` packs it, lacks the Jackson that Iceberg's own has under
another name. Spark has Jackson under its plain name: its classes are renamed.
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

_PLAIN, _SHADED = b"com/fasterxml/jackson", b"org/apache/iceberg/shaded/com/fasterxml/jackson"
# Bytes after the tag of an entry of a class file's constant pool (The Java Virtual Machine Specification, 4.4).
_SIZES = {**dict.fromkeys((7, 8, 16, 19, 20), 2), **dict.fromkeys((5, 6), 8), 15: 3}
_SIZES |= dict.fromkeys((3, 4, 9, 10, 11, 12, 17, 18), 4)
_UTF8, _LONG, _DOUBLE = 1, 5, 6


def spark_jars(site_packages: Path, made: Path) -> list[Path]:
    """Iceberg's runtime, its Jackson (written to `made`), and SQLite's driver. Raises FileNotFoundError."""
    (runtime,) = site_packages.glob("snowpark_connect_deps_iceberg/jars/iceberg-spark-runtime-3.5_2.12-*.jar")
    sqlite = Path("/usr/share/java/sqlite-jdbc.jar")
    if not sqlite.exists():
        raise FileNotFoundError(f"{sqlite} (Debian: libxerial-sqlite-jdbc-java)")
    with zipfile.ZipFile(made, "w") as out:
        for name in ("core-2", "databind", "annotations"):
            (jar,) = site_packages.glob(f"pyspark/jars/jackson-{name}*.jar")
            with zipfile.ZipFile(jar) as given:
                for entry in given.namelist():
                    if entry.endswith(".class") and entry.startswith(_PLAIN.decode()):
                        out.writestr(entry.replace(_PLAIN.decode(), _SHADED.decode()), renamed(given.read(entry)))
    return [runtime, made, sqlite]


def renamed(code: bytes) -> bytes:
    """A class file in which every name of Jackson's is Iceberg's for it."""
    (entries,) = struct.unpack_from(">H", code, 8)
    parts, at, entry = [code[:10]], 10, 1
    while entry < entries:
        tag = code[at]
        if tag == _UTF8:
            (length,) = struct.unpack_from(">H", code, at + 1)
            text = code[at + 3 : at + 3 + length]
            for separator in (b"/", b"."):
                text = text.replace(_PLAIN.replace(b"/", separator), _SHADED.replace(b"/", separator))
            parts.append(struct.pack(">BH", tag, len(text)) + text)
            at += 3 + length
        else:
            parts.append(code[at : at + 1 + _SIZES[tag]])
            at += 1 + _SIZES[tag]
        entry += 2 if tag in (_LONG, _DOUBLE) else 1
    return b"".join(parts) + code[at:]
