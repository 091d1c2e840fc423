"""An object of any size, written piece by piece; nobody sees it before it is whole (S3's multipart upload).

pyarrow's streams can't do that: when they are closed they complete what they hold, also where who wrote them failed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from bizllm.tables import retry
from bizllm.tables.s3 import abort_upload
from bizllm.tables.s3_clients import client, forget
from bizllm.tables.urls import FileInfo, split

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import CompletedPartTypeDef

PART_BYTES = 64 << 20  # S3 takes 10,000: 640 GB. All of one size but the last, as some stores want them.
_MARK = "bizllm-upload"  # by which an upload whose answer was lost knows its own object
Answer = TypeVar("Answer")


class Upload:
    """A file to write to; `complete` puts it in place, `abort` leaves what is there. One part is held in memory.

    Each request is tried again where the store's fault may pass. Encrypted as the bucket does by default, like streams:
    it need not be the warehouse's. Raises RunError.
    """

    closed = False

    def __init__(self, url: str) -> None:
        self._url = url
        self._bucket, self._key = split(url)
        self._mark = uuid4().hex
        self._upload = ""  # its id, from the first part on
        self._parts: list[CompletedPartTypeDef] = []
        self._rest = bytearray()

    def writable(self) -> bool:
        """For who asks a file."""
        return True

    def flush(self) -> None:
        """Parts are sent when they are full."""

    def write(self, data: bytes) -> int:
        """All of it."""
        self._rest += data
        while len(self._rest) >= PART_BYTES:
            self._send(bytes(memoryview(self._rest)[:PART_BYTES]))
            del self._rest[:PART_BYTES]
        return len(data)

    def complete(self) -> None:
        """The object is there from now on, whole."""
        if not self._upload:
            bucket, key, whole = self._bucket, self._key, bytes(self._rest)
            self._again(lambda: client().put_object(Bucket=bucket, Key=key, Body=whole))
            return
        if self._rest:
            self._send(bytes(self._rest))

        def end() -> None:
            from botocore.exceptions import ClientError

            try:
                client().complete_multipart_upload(
                    Bucket=self._bucket, Key=self._key, UploadId=self._upload, MultipartUpload={"Parts": self._parts}
                )
            except ClientError as fault:
                if fault.response["Error"]["Code"] != "NoSuchUpload" or not self._is_there():
                    raise

        self._again(end)

    def abort(self) -> None:
        """Nothing of it is kept, and nobody has seen it."""
        if self._upload:
            self._again(lambda: abort_upload(FileInfo(self._url, 0, self._upload)))

    def _send(self, part: bytes) -> None:
        bucket, key, number = self._bucket, self._key, len(self._parts) + 1
        if not self._upload:
            mark = {_MARK: self._mark}
            begun = self._again(lambda: client().create_multipart_upload(Bucket=bucket, Key=key, Metadata=mark))
            self._upload = begun["UploadId"]
        sent = self._again(
            lambda: client().upload_part(Bucket=bucket, Key=key, UploadId=self._upload, PartNumber=number, Body=part)
        )
        self._parts.append({"PartNumber": number, "ETag": sent["ETag"]})

    def _is_there(self) -> bool:
        from botocore.exceptions import ClientError

        try:
            return client().head_object(Bucket=self._bucket, Key=self._key)["Metadata"].get(_MARK) == self._mark
        except ClientError:
            return False

    def _again(self, call: Callable[[], Answer]) -> Answer:
        return retry.retried(call, self._url, "write", forget)
