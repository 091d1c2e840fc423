"""Answers to questions out of a table of passages, with the passage that each cites and how sure it is."""

from __future__ import annotations

from typing import ClassVar

from bizllm.tasks._retrieve import RetrieveSettings, RetrieveTask


class AnswerSettings(RetrieveSettings):
    """What `task: answer` takes."""


class Answer(RetrieveTask):
    """The best passage of `bizllm.methods.retrieval`, and its sentences that answer the question."""

    name = "answer"
    version = 1
    Settings = AnswerSettings
    summary = "The answer to each question from a table of passages, citing one; or an escalation, where none is sure."
    takes = "A question in each row, and, in a table of its own, passages: articles, policies, or a FAQ."
    example = (
        "ticket_answer: {task: answer, input: tickets, text: body, model: encoder, passages: {input: "
        "articles, id: article_id, title: title, text: body}}"
    )
    writes: ClassVar[dict[str, str]] = RetrieveTask.shared_writes
    settings: AnswerSettings


TASK = Answer
