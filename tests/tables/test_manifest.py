"""Manifests: every row in exactly one unit, the same units from the same files, and a change is seen."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from bizllm.errors import RunError, UserError
from bizllm.tables.manifest import (
    MOST_ROWS,
    FileSlices,
    FrozenFile,
    Manifest,
    Part,
    Snapshot,
    Unit,
    freeze,
    pack,
    spread_rows,
    verify,
)
from bizllm.tables.settings import SourceSettings
from bizllm.tables.source import Source

D = date(2024, 3, 2)
FILES = st.lists(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 1000)), max_size=6), max_size=12)


def source(path: Path, **settings: Any) -> Source:
    return Source("t", SourceSettings.model_validate({"path": str(path), **settings}), lambda *keys: ".".join(keys))


def write(path: Path, start: int, rows: int, row_group_size: int = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": range(start, start + rows), "wide": ["x" * 100] * rows})
    pq.write_table(table, path, row_group_size=row_group_size, use_dictionary=False, compression="none")


@settings(max_examples=200, deadline=None)
@given(files=FILES, unit_rows=st.integers(1, 120), unit_bytes=st.integers(1, 3000))
def test_every_row_is_in_one_unit(files: list[list[tuple[int, int]]], unit_rows: int, unit_bytes: int) -> None:
    slices, expected, sizes = [], [], {}
    for number, groups in enumerate(files):
        at, kept = 0, []
        for index, (rows, size) in enumerate(groups):
            if rows:
                kept.append((index, at, rows, size))
                expected += [(f"f{number}", row) for row in range(at, at + rows)]
                sizes[f"f{number}", index] = (rows, size)
            at += rows
        slices.append(FileSlices(FrozenFile(f"f{number}", 0, "", at), None, kept))
    units = list(pack(slices, unit_rows, unit_bytes))
    rows = [(p.url, row) for parts, _ in units for p in parts for row in range(p.first_row, p.first_row + p.rows)]
    assert rows == expected
    assert sum(weight for _, weight in units) == sum(size for _, size in sizes.values())

    def cut(parts: Sequence[Part]) -> bool:
        rows, size = sizes[parts[0].url, parts[0].row_groups[0]]
        return rows > unit_rows or (size > unit_bytes and rows > 1)

    for parts, weight in units:
        groups = [(p.url, index) for p in parts for index in range(*p.row_groups) if (p.url, index) in sizes]
        if cut(parts):
            rows_of, size = sizes[groups[0]]
            assert len(parts) == len(groups) == 1, "a row group larger than a unit makes units of its own"
            assert parts[0].rows <= unit_rows and parts[0].rows < rows_of
            assert weight <= unit_bytes + 1 or parts[0].rows <= -(-rows_of * unit_bytes // size) or parts[0].rows == 1
        else:
            assert weight == sum(sizes[group][1] for group in groups)
            within = sum(p.rows for p in parts) <= unit_rows and weight <= unit_bytes
            assert parts and (within or len(groups) == 1), "only a single row that is too large by itself may exceed"
    for (parts, weight), (following, _) in pairwise(units):
        if cut(parts) or cut(following):
            continue
        first = sizes[following[0].url, following[0].row_groups[0]]
        unit = sum(p.rows for p in parts)
        assert unit + first[0] > unit_rows or weight + first[1] > unit_bytes, "a unit is as full as it may be"


@settings(max_examples=10, deadline=None)
@given(
    files=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 15)), min_size=1, max_size=5),
    unit_rows=st.integers(1, 60),
)
def test_reading_all_units_reads_every_row_once(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[int, int]], unit_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("lake")
    start = 0
    for number, (rows, group) in enumerate(files):
        write(folder / f"{number:03d}.parquet", start, rows, group)
        start += rows
    made = source(folder)
    manifest = freeze(made, D, "all", ["id"], unit_rows=unit_rows)
    assert [i for unit in manifest.units for i in made.read(unit, ["id"])["id"].to_pylist()] == list(range(start))
    assert manifest.rows == start == sum(file.rows for file in manifest.files)


def test_small_files_share_a_unit_and_a_large_one_is_cut(tmp_path: Path) -> None:
    for number in range(300):
        write(tmp_path / f"small{number:03d}.parquet", number, 1)
    write(tmp_path / "large.parquet", 0, 1000, 100)
    manifest = freeze(source(tmp_path), D, "all", ["id"], unit_rows=300)
    assert [unit.rows for unit in manifest.units] == [300, 300, 300, 300, 100]
    assert [unit.id for unit in manifest.units] == [f"u{i:05d}" for i in range(5)]
    assert manifest.units[0].parts[0].row_groups == (0, 3)
    assert [file.url for file in manifest.files] == sorted(file.url for file in manifest.files)


@pytest.mark.parametrize(
    ("rows", "units"), [(0, 0), (12, 1), (4_000, 1), (4_001, 4), (100_000, 16), (10**6, 20), (10**7, 200)]
)
def test_units_are_many_enough_for_workers_to_end_together(rows: int, units: int) -> None:
    size = spread_rows(rows)
    assert -(-rows // size) == units and size <= MOST_ROWS


def test_small_files_share_units_that_nobody_sized(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path / f"{number}.parquet", number * 2_000, 2_000, 500)
    manifest = freeze(source(tmp_path), D, "all", ["id"], unit_rows=None)
    assert [unit.rows for unit in manifest.units] == [2_500] * 4


def test_bytes_count_the_columns_that_are_read(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", 0, 100)
    narrow = freeze(source(tmp_path), D, "all", ["id"], unit_bytes=2000)
    wide = freeze(source(tmp_path), D, "all", ["id", "wide"], unit_bytes=2000)
    assert narrow.bytes < 2000 < 10_000 < wide.bytes
    assert len(narrow.units) == 1 and len(wide.units) > 5


def test_the_hash_tells_files_and_settings_but_not_units(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.parquet", number * 10, 10)

    def frozen(unit_rows: int = 100, **settings: Any) -> str:
        return freeze(source(tmp_path, **settings), D, "all", ["id"], unit_rows=unit_rows).hash

    first = frozen()
    assert frozen() == first == frozen(unit_rows=1)
    assert frozen(filter="id > 1") != first
    os.utime(tmp_path / "1.parquet", ns=(1, 1))
    assert frozen() != first
    os.unlink(tmp_path / "1.parquet")
    assert frozen() != first


def test_json_round_trips(tmp_path: Path) -> None:
    for day in ("2024-03-01", "2024-03-02"):
        write(tmp_path / f"dt={day}" / "x.parquet", 0, 35)
    manifest = freeze(source(tmp_path, partition="dt"), D, "to_date", ["id"], unit_rows=25)
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.units[1].parts[0].partition == "2024-03-01"


def test_twenty_thousand_units_load_in_a_second() -> None:
    files = tuple(
        FrozenFile(f"s3://lake/t/dt=2024-03-02/part-{i:05d}.parquet", 10**8, f"{i:032x}", 10**5) for i in range(20_000)
    )
    units = tuple(
        Unit(f"u{i:05d}", (Part(f.url, f.size, f.etag, (0, 2), 0, 10**5, "2024-03-02"),), "day", "2024-03-02")
        for i, f in enumerate(files)
    )
    manifest = Manifest("t", "day", "2024-03-02", files, units, 2 * 10**9, 1, pa.schema([("id", pa.int64())]), "h")
    text = manifest.to_json()
    best = float("inf")
    for _ in range(3):  # processor time: other processes may hold the cores
        if best < 1.0:
            break
        start = time.process_time()
        loaded = Manifest.from_json(text)
        best = min(best, time.process_time() - start)
    assert loaded == manifest
    assert best < 1.0
    assert len(text) < 4 * 2**20


def test_a_manifest_of_another_format_is_refused() -> None:
    with pytest.raises(RunError, match="--fresh"):
        Manifest.from_json('{"format": 999}')


def test_a_file_that_changes_or_goes_is_named(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.parquet", 0, 10)
    (unit,) = freeze(source(tmp_path), D, "all", ["id"]).units
    verify(unit)
    write(tmp_path / "1.parquet", 0, 10)  # the same size, another time
    with pytest.raises(RunError, match=r"1\.parquet: the file changed"):
        verify(unit)
    os.unlink(tmp_path / "1.parquet")
    with pytest.raises(RunError, match=r"1\.parquet: the file is gone"):
        verify(unit)


def test_days_outside_a_row_groups_statistics_are_not_read(tmp_path: Path) -> None:
    days = [date(2024, 3, day) for day in (1, 1, 2, 2, 3, 3)]
    pq.write_table(pa.table({"day": days, "id": range(6)}), tmp_path / "x.parquet", row_group_size=2)
    made = source(tmp_path, partition="day")
    (unit,) = freeze(made, D, "day", ["id"]).units
    assert [(part.row_groups, part.first_row) for part in unit.parts] == [((1, 2), 2)]
    assert freeze(made, D, "to_date", ["id"]).rows == 4


def test_files_beyond_the_sample_are_checked_when_frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bizllm.tables.parquet._LOOKED_AT", 2)
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.parquet", 0, 10)
    pq.write_table(pa.table({"id": ["x"], "wide": ["y"]}), tmp_path / "b.parquet")
    made = source(tmp_path)
    assert made.faults() == []
    with pytest.raises(UserError, match=r"a\.parquet and b\.parquet.*column 'id' is int64 in the first and string"):
        freeze(made, D, "all", ["id"])
    (tmp_path / "b.parquet").write_bytes(b"no")
    with pytest.raises(UserError, match=r"'b\.parquet': expected a Parquet file"):
        freeze(source(tmp_path), D, "all", ["id"])


def test_an_iceberg_snapshot_is_kept() -> None:
    at = Snapshot("s3://w/t/metadata/1.json", 7, (("==", "run_date", "2024-03-02"),))
    file = FrozenFile("s3://w/t/data/1.parquet", 5, "", 10)
    unit = Unit("u00000", (Part(file.url, 5, "", (0, 0), 0, 10),), "day", "2024-03-02", at)
    manifest = Manifest("t", "day", "2024-03-02", (file,), (unit,), 10, 5, pa.schema([("id", pa.int64())]), "h", at)
    assert Manifest.from_json(manifest.to_json()) == manifest
    verify(unit)  # its files never change, and need not be there to say so
