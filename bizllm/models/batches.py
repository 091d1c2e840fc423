"""Texts → windows of token ids → padded batches of about equal cost: what every model that reads in bulk shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Whole = npt.NDArray[np.int64]
Asked = TypeVar("Asked", str, tuple[str, str])
Made = TypeVar("Made")

AHEAD = 16_384  # texts, or pairs, that are tokenized while a GPU reads those before them


@dataclass(frozen=True)
class Windows:
    """What a model reads at once.

    tokens: (all tokens,) int32: the ids of each window, special tokens included, one window after the other.
    lengths: (windows,) tokens of each.
    owner: (windows,) the position of the text that each belongs to, ascending.
    types: (all tokens,) for pairs the segment, 0 or 1, of each token; None where the model knows no segments.
    """

    tokens: npt.NDArray[np.int32]
    lengths: Whole
    owner: Whole
    types: npt.NDArray[np.int32] | None = None

    @classmethod
    def of(cls, ids: Sequence[list[int]], owner: Whole, types: Sequence[list[int]] | None = None) -> Windows:
        """From the ids, and types, of each window."""
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        total = int(lengths.sum())
        flat = np.fromiter(chain.from_iterable(ids), np.int32, total)
        return cls(flat, lengths, owner, None if types is None else np.fromiter(chain(*types), np.int32, total))

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def starts(self) -> Whole:
        """(windows,) where each begins in `tokens`."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def places(self) -> Whole:
        """(all tokens,) the place of each in its window."""
        return _counted_up(self.lengths)

    def take(self, windows: Whole) -> Windows:
        """Some windows, each a text of its own."""
        at = np.repeat(self.starts[windows], self.lengths[windows]) + _counted_up(self.lengths[windows])
        types = None if self.types is None else self.types[at]
        return Windows(self.tokens[at], self.lengths[windows], np.arange(len(windows)), types)

    def tokens_read(self, texts: int) -> Whole:
        """(texts,) tokens that the model reads of each text."""
        return np.bincount(self.owner, self.lengths, texts).astype(np.int64)

    def weighted_sum(self, values: Floats, texts: int) -> Floats:
        """(texts, dim): over the windows (windows, dim) of each text, each as often as it has tokens."""
        if len(self) == texts:  # one window a text, in order
            return values * self.lengths[:, None].astype(np.float32)
        total = np.zeros((texts, values.shape[1]), np.float32)
        np.add.at(total, self.owner, values * self.lengths[:, None].astype(np.float32))
        return total


def _counted_up(lengths: Whole) -> Whole:
    """0, 1, … of each length, one after the other."""
    return np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def distinct(asked: Sequence[Asked]) -> tuple[list[Asked], Whole]:
    """(each once, sorted; (asked,) the place of each there): the order of what is asked decides nothing."""
    places = {item: i for i, item in enumerate(sorted(set(asked)))}
    return list(places), np.array([places[item] for item in asked], np.int64)


def text_windows(tokenizer: Any, texts: list[str], max_tokens: int) -> Windows:
    """Texts cut into as few windows as hold them, of about equal length: a tail of three tokens would say little."""
    before, after = special_tokens(tokenizer, 1)
    size = max_tokens - len(before) - len(after)
    plain = plain_ids(tokenizer, texts)
    found = np.fromiter(map(len, plain), np.int64, len(plain))
    counts = np.maximum(1, -(-found // size))
    owner = np.repeat(np.arange(len(texts)), counts)
    # Of a text, as many of the first windows as there are tokens left over hold one token more.
    parts = (found // counts)[owner] + (_counted_up(counts) < (found % counts)[owner])
    lengths = parts + len(before) + len(after)
    starts = np.cumsum(lengths) - lengths
    tokens = np.empty(int(lengths.sum()), np.int32)
    own = np.ones(len(tokens), bool)
    around = [*enumerate(before), *((i - len(after), token) for i, token in enumerate(after))]
    for at, token in around:
        place = starts + at if at >= 0 else starts + lengths + at
        tokens[place], own[place] = token, False
    tokens[own] = np.fromiter(chain.from_iterable(plain), np.int32, int(found.sum()))
    return Windows(tokens, lengths, owner)


def pair_windows(tokenizer: Any, pairs: list[tuple[str, str]], max_tokens: int) -> Windows:
    """Pairs of texts, side by side in each window.

    Where a pair is too long, a side that takes at most half of the window stands whole in each, beside the parts of
    the other. Of two long sides the parts stand beside each other in order, so that all is read once.
    """
    before, between, after = special_tokens(tokenizer, 2)
    size = max_tokens - len(before) - len(between) - len(after)
    windows: list[list[int]] = []
    types: list[list[int]] = []
    counts = []
    firsts, seconds = (plain_ids(tokenizer, [pair[side] for pair in pairs]) for side in (0, 1))
    for first, second in zip(firsts, seconds, strict=True):
        parts = list(zip(*_pair_parts(first, second, size), strict=True))
        for one, other in parts:
            windows.append([*before, *one, *between, *other, *after])
            head = len(before) + len(one) + len(between)
            types.append([0] * head + [1] * (len(other) + len(after)))
        counts.append(len(parts))
    known = "token_type_ids" in tokenizer.model_input_names
    return Windows.of(windows, np.repeat(np.arange(len(pairs)), counts), types if known else None)


def in_parts(cut: Callable[[list[Asked]], Windows], asked: list[Asked], ahead: bool) -> Iterator[Windows]:
    """The windows of all at once; `ahead` those of some after those of others, each part made while the last is read.

    So a GPU need not wait for the tokenizer, which runs on the CPU and holds no lock meanwhile.
    """
    if not ahead or len(asked) <= AHEAD:
        yield cut(asked)
        return
    with ThreadPoolExecutor(1) as thread:
        made = thread.submit(cut, asked[:AHEAD])
        for start in range(AHEAD, len(asked), AHEAD):
            windows, made = made, thread.submit(cut, asked[start : start + AHEAD])
            yield windows.result()
        yield made.result()


def special_tokens(tokenizer: Any, texts: int) -> list[list[int]]:
    """What the tokenizer puts before, between and after so many texts: `texts + 1` lists, e.g. [CLS] and [SEP]."""
    marked = tokenizer(*["a"] * texts, add_special_tokens=True)
    around: list[list[int]] = [[]]
    for token, text in zip(marked["input_ids"], marked.sequence_ids(), strict=True):
        if text is None:
            around[-1].append(token)
        elif text == len(around) - 1:
            around.append([])
    return around


def plain_ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """The token ids of each text, whole and without special tokens."""
    return [made.ids for made in _plain(tokenizer).encode_batch_fast(texts, add_special_tokens=False)]


def token_places(tokenizer: Any, texts: list[str]) -> list[list[tuple[int, int]]]:
    """The characters [start, end) of each of those tokens."""
    return [made.offsets for made in _plain(tokenizer).encode_batch(texts, add_special_tokens=False)]


def _plain(tokenizer: Any) -> Any:
    fast = tokenizer.backend_tokenizer  # transformers' own way asks for offsets and copies all it gets
    fast.no_truncation()
    fast.no_padding()
    fast.encode_special_tokens = tokenizer.split_special_tokens
    return fast


def within_memory(run: Callable[[Whole], Made], rows: Whole) -> Iterator[tuple[Whole, Made]]:
    """(rows, what `run` makes of them): all at once, or in halves of halves where memory does not hold them.

    One row alone that does not fit raises what the device said.
    """
    try:
        made = run(rows)
    except (MemoryError, RuntimeError) as fault:
        if len(rows) <= 1 or not is_out_of_memory(fault):
            raise
    else:
        yield rows, made
        return
    free_memory()  # outside the handler: the traceback holds the tensors that did fit
    half = len(rows) // 2
    yield from within_memory(run, rows[:half])
    yield from within_memory(run, rows[half:])


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether memory, of the machine or the device, did not hold what was computed."""
    import torch

    # On a CPU the allocators of torch and OpenVINO raise a plain RuntimeError.
    said = ("DefaultCPUAllocator", "bad_alloc", "Failed to allocate")
    return isinstance(fault, MemoryError | torch.OutOfMemoryError) or any(words in str(fault) for words in said)


def free_memory() -> None:
    """Give back what a device keeps for later."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def by_budget(lengths: Whole, budget: int, equal: bool = False) -> Iterator[Whole]:
    """Rows in batches, longest first, each at most `budget` tokens when padded to its longest row (or one row).

    equal: rows of a batch are of one length, so that none is padded.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        rows = max(1, budget // longest)
        if equal:
            rows = min(rows, int(np.count_nonzero(lengths[order[start:]] == longest)))
        yield order[start : start + rows]
        start += rows


def by_tokens(lengths: Whole, budget: int) -> Iterator[Whole]:
    """Rows in batches, longest first, each at most `budget` tokens without padding (or one row)."""
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    start = 0
    while start < len(order):
        before = ends[start] - lengths[order[start]]
        stop = max(start + 1, int(np.searchsorted(ends, before + budget, side="right")))
        yield order[start:stop]
        start = stop


def padded(windows: Windows, rows: Whole, pad: int) -> dict[str, Whole]:
    """Arrays (rows, tokens) of some windows, padded on the right to the longest of them: `input_ids`, `attention_mask`,
    and `token_type_ids` where the windows have types."""
    lengths = windows.lengths[rows]
    columns = np.arange(int(lengths.max()))
    real = columns[None, :] < lengths[:, None]  # (rows, tokens)
    at = (windows.starts[rows][:, None] + columns[None, :])[real]

    def filled(values: npt.NDArray[np.int32], empty: int) -> Whole:
        array = np.full(real.shape, empty, np.int64)
        array[real] = values[at]
        return array

    batch = {"input_ids": filled(windows.tokens, pad), "attention_mask": real.astype(np.int64)}
    if windows.types is not None:
        batch["token_type_ids"] = filled(windows.types, 0)
    return batch


def placement(device: str | None, dtype: str | None) -> tuple[str, str]:
    """(device, dtype): by default cuda where there is one, else cpu, and the fastest that it computes natively."""
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return device, dtype or ("bfloat16" if native_bfloat16(device) else "float32")


def load_tokenizer(folder: Any) -> Any:
    """The folder's tokenizer; no code of the folder is run."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a worker has no terminal
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _equal_parts(ids: list[int], count: int) -> list[list[int]]:
    if count == 1:
        return [ids]
    return [part.tolist() for part in np.array_split(np.array(ids, np.int64), count)]


def _pair_parts(first: list[int], second: list[int], size: int) -> tuple[list[list[int]], list[list[int]]]:
    """As many parts of one as of the other, of which two side by side hold at most `size` tokens."""
    if len(first) + len(second) <= size:
        return [first], [second]
    half = size // 2
    if min(len(first), len(second)) > half:
        count = -(-max(len(first), len(second)) // half)
        return _equal_parts(first, count), _equal_parts(second, count)
    if len(first) <= len(second):
        count = -(-len(second) // (size - len(first)))
        return [first] * count, _equal_parts(second, count)
    count = -(-len(first) // (size - len(second)))
    return _equal_parts(first, count), [second] * count


def native_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 in hardware; emulated it is slower than float32."""
    import torch

    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
