"""PyIceberg's files through this package's storage: the same stores, credentials, encryption and retries.

Metadata and manifests are small and are read and written whole, so that they can be asked for again; data files are
read as streams. What the job's `properties` or a catalog says of a store (`s3.…`, `adls.…`, `gcs.…`) goes before: then
PyIceberg's own way is taken.
"""

from __future__ import annotations

import io
from typing import Any

from pyiceberg.io import InputFile, OutputFile
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

from bizllm.tables import storage

_OF_A_STORE = ("s3.", "adls.", "gcs.", "oss.")
_METADATA = (".avro", ".json")


class StorageFileIO(PyArrowFileIO):
    """What the catalog property `py-io-impl` names."""

    def new_input(self, location: str) -> PyArrowFile:
        return _StoredFile(location) if self._own(location) else super().new_input(location)

    def new_output(self, location: str) -> PyArrowFile:
        return _StoredFile(location) if self._own(location) else super().new_output(location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        url = location if isinstance(location, str) else location.location
        if self._own(url):
            storage.delete(url)
        else:
            super().delete(location)

    def _own(self, location: str) -> bool:
        named = any(name.startswith(_OF_A_STORE) for name in self.properties)
        return not named and not storage.is_local(location)


class _StoredFile(PyArrowFile):
    def __init__(self, location: str) -> None:
        store, path = storage.filesystem(location)
        super().__init__(location, path, store)

    def __len__(self) -> int:
        found = storage.stat(self.location)
        if found is None:
            raise FileNotFoundError(self.location)
        return found.size

    def exists(self) -> bool:
        return storage.stat(self.location) is not None

    def open(self, seekable: bool = True) -> Any:
        # PyIceberg asks for a stream of a manifest, too, and reads it to its end.
        streamed = seekable and not self.location.endswith(_METADATA)
        return storage.open_input(self.location) if streamed else io.BytesIO(storage.read_bytes(self.location))

    def create(self, overwrite: bool = False) -> Any:
        if not overwrite and self.exists():
            raise FileExistsError(f"Cannot create file, already exists: {self.location}")
        return _Whole(self.location)


class _Whole(io.BytesIO):
    """Written to the store when it is closed; not at all where the block that writes it fails."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def close(self) -> None:
        if not self.closed:
            data = self.getvalue()
            super().close()
            storage.write_bytes(self._url, data)

    def __exit__(self, *fault: Any) -> None:
        if fault[0] is None:
            self.close()
        else:
            super().close()

    def __del__(self) -> None:
        """Garbage is nothing to write."""
