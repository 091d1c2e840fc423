"""What a task and a source use: rules of a job → texts with personal data masked out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from bizllm import logs
from bizllm.errors import safe_text
from bizllm.methods.pii import engine, pseudonyms
from bizllm.methods.pii.spans import Span, resolve
from bizllm.tables.mask_settings import ENTITIES, MaskRules

log = logs.get(__name__)

VERSION = 1  # raise it when what is found or put in its place moves; part of the fingerprint
UNREADABLE = "\ufffd"  # stands for a text that could not be masked: a task rejects it as undecodable
BY_MODEL = frozenset({"ORGANIZATION"})  # no rule finds these


@dataclass(frozen=True)
class Masker:
    """Plain settings that travel to workers; the analyzer is built where the first text comes."""

    rules: MaskRules

    @property
    def entities(self) -> frozenset[str]:
        """What is masked."""
        return frozenset(self.rules.entities or ENTITIES)

    def spans(self, text: str, more: Sequence[Span] = ()) -> list[Span]:
        """What is masked of a text, in order, none over another. more: what a model found in it."""
        rules = self.rules
        found = engine.find(text, self.entities, rules.language, rules.score_threshold)
        wanted = [s for s in more if s.type in self.entities and s.score >= rules.score_threshold]
        return resolve([*found, *wanted], text)

    def masked(self, text: str, spans: Sequence[Span]) -> str:
        """The text with each span replaced."""
        parts, at = [], 0
        for span in spans:
            parts += [text[at : span.start], self._instead(span, text[span.start : span.end])]
            at = span.end
        return "".join([*parts, text[at:]])

    def column(self, texts: pa.ChunkedArray) -> pa.ChunkedArray:
        """A string column, masked; null stays null. Bytes that are no UTF-8 become U+FFFD first. No text gets by: where
        one can't be masked, UNREADABLE stands instead."""
        made: dict[bytes, str] = {}
        raw = texts.cast(pa.binary()).to_pylist()
        for value in raw:
            if value is not None and value not in made:
                made[value] = self._whole(value)
        masked = [None if value is None else made[value] for value in raw]
        return pa.chunked_array([pa.array(masked, texts.type)])

    def _whole(self, value: bytes) -> str:
        text = value.decode("utf-8", "replace")
        try:
            return self.masked(text, self.spans(text))
        except Exception as fault:
            log.warning("text_not_masked", error=safe_text(fault), chars=len(text))
            return UNREADABLE

    def _instead(self, span: Span, value: str) -> str:
        rules = self.rules
        if rules.mode == "pseudonym":
            assert rules.key is not None, "checked with the settings"
            return pseudonyms.pseudonym(span.type, value, rules.key.get_secret_value())
        return rules.symbol or f"<{span.type}>"
