"""The rules as recognizers of Presidio. Imports Presidio, which takes seconds: `engine` imports this when asked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from presidio_analyzer import AnalyzerEngine, EntityRecognizer, RecognizerRegistry, RecognizerResult
from presidio_analyzer.context_aware_enhancers import ContextAwareEnhancer
from presidio_analyzer.nlp_engine import NlpArtifacts, NoOpNlpEngine

from bizllm.methods.pii import addresses_en, names_en, names_zh, rules_any, rules_en, rules_zh
from bizllm.methods.pii.spans import Span, resolve

LANGUAGES = ("en", "zh")
_RULES: dict[str, list[Any]] = {
    "en": [*rules_any.RULES, *rules_en.RULES, *addresses_en.RULES, *names_en.RULES],
    "zh": [*rules_any.RULES, *rules_zh.RULES, *names_zh.RULES],
}


class RuleRecognizer(EntityRecognizer):
    """All rules for one kind of entity in one language. They look at the words around a match themselves: a window of
    characters, which Chinese has as well as English, where Presidio's enhancer wants the lemmas of a model."""

    def __init__(self, entity: str, language: str, rules: Sequence[Any], least: float) -> None:
        self.rules, self.least = rules, least
        super().__init__([entity], name=f"bizllm {entity} {language}", supported_language=language)

    def load(self) -> None:
        """Nothing: the expressions were compiled when they were imported."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        """What the rules find, none over another: Presidio compares every result with every other."""
        found = (span for rule in self.rules for span in rule.find(text) if span.score >= self.least)
        return [RecognizerResult(span.type, span.start, span.end, span.score) for span in resolve(found, text)]


class _AsFound(ContextAwareEnhancer):
    """Leaves scores as the rules gave them."""

    def __init__(self) -> None:
        super().__init__(0.0, 0.0, 0, 0)

    def enhance_using_context(
        self,
        text: str,
        raw_results: list[RecognizerResult],
        nlp_artifacts: NlpArtifacts,
        recognizers: list[EntityRecognizer],
        context: list[str] | None = None,
    ) -> list[RecognizerResult]:
        return raw_results


class Analyzer:
    """Presidio's engine with these recognizers and no others: no model, no file to download, no network.

    least: the score that counts.
    """

    def __init__(self, least: float) -> None:
        logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)  # it quotes texts below that
        registry = RecognizerRegistry(supported_languages=list(LANGUAGES))
        for language, rules in _RULES.items():
            for entity in sorted({rule.type for rule in rules}):
                of_entity = [rule for rule in rules if rule.type == entity]
                registry.add_recognizer(RuleRecognizer(entity, language, of_entity, least))
        self.engine = AnalyzerEngine(
            registry=registry,
            nlp_engine=NoOpNlpEngine(models=[{"lang_code": name, "model_name": "none"} for name in LANGUAGES]),
            supported_languages=list(LANGUAGES),
            context_aware_enhancer=_AsFound(),
        )
        self.known = {language: frozenset(rule.type for rule in rules) for language, rules in _RULES.items()}

    def spans(self, text: str, language: str, entities: Sequence[str]) -> list[Span]:
        """What a folded text holds of these entities; those of different kinds may overlap."""
        asked = [entity for entity in entities if entity in self.known[language]]
        if not asked:
            return []
        found = self.engine.analyze(text, language, entities=asked)
        return [Span(r.start, r.end, r.entity_type, float(r.score)) for r in found]
