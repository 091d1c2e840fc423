"""The `notify:` section of a job or a training file: who is told how it went."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field

from bizllm.tables.settings import Closed

Event = Literal["failed", "late", "recovered", "done"]
VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}", re.ASCII)


class Receiver(Closed):
    """A webhook, and what it wants to hear of."""

    url: str = Field(
        pattern=r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$",
        description="`${VARIABLE}` that holds the webhook's URL, a secret; read when a night is run or checked.",
    )
    format: Literal["json", "slack"] = Field(
        default="json", description="json: the facts as one object. slack: a message as Slack shows it."
    )
    on: list[Event] = Field(
        default=["failed", "late", "recovered"],
        min_length=1,
        description="failed or interrupted; late: not there when due; recovered: there after all; done: a new night.",
    )

    @property
    def variable(self) -> str:
        """The name of the variable that holds the URL."""
        found = VARIABLE.fullmatch(self.url)
        assert found, "the settings take nothing else"
        return found[1]
