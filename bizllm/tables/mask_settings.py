"""How personal data is masked, wherever a job asks for it. Apart from the code that does it: imported in no time."""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_serializer, field_validator, model_validator

Entity = Literal[
    "ADDRESS",
    "AGE",
    "BANK_ACCOUNT",
    "BIRTH_DATE",
    "CARD",
    "CN_ID",
    "DRIVER_LICENSE",
    "EMAIL",
    "IBAN",
    "IP",
    "LOCATION",
    "ORGANIZATION",
    "PASSPORT",
    "PERSON",
    "PHONE",
    "PLATE",
    "QQ",
    "UK_NHS",
    "UK_NINO",
    "URL",
    "US_SSN",
    "WECHAT",
]
ENTITIES: tuple[str, ...] = get_args(Entity)
LEAST_KEY = 32  # characters: 128 bits as hexadecimal digits


class MaskRules(BaseModel):
    """What to look for, and what to put in its place."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    entities: list[Entity] | None = Field(
        default=None, min_length=1, description="Kinds of personal data to mask; all known ones by default."
    )
    language: Literal["auto", "en", "zh"] = Field(
        default="auto", description="Whose rules are used; auto: those of the scripts that the text is written in."
    )
    mode: Literal["mask", "pseudonym"] = Field(
        default="mask", description="mask: `<PHONE>` or `symbol`; pseudonym: one that the key turns back."
    )
    symbol: str | None = Field(
        default=None, min_length=1, max_length=20, description="Stands for every entity instead of `<TYPE>`."
    )
    key: SecretStr | None = Field(
        default=None,
        description=f"Of `mode: pseudonym`: `${{NAME}}`, an environment variable of at least {LEAST_KEY} characters.",
    )
    score_threshold: float = Field(
        default=0.4, ge=0.0, le=1.0, description="Entities that are less certain than this stay; lower masks more."
    )

    @field_validator("key")
    @classmethod
    def _long(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value()) < LEAST_KEY:
            raise ValueError(f"expected a key of at least {LEAST_KEY} characters, such as `openssl rand -hex 32` gives")
        return key

    @field_serializer("key")
    def _digest(self, key: SecretStr | None) -> str | None:
        """What a fingerprint sees: another key is another fingerprint, and no fingerprint tells the key."""
        if key is None:
            return None
        return hmac.new(
            key.get_secret_value().encode(), b"bizllm fingerprint of a mask key", hashlib.sha256
        ).hexdigest()

    @model_validator(mode="after")
    def _one_way(self) -> MaskRules:
        if self.mode == "pseudonym" and self.key is None:
            raise ValueError("`mode: pseudonym` needs a `key`, such as ${BIZLLM_MASK_KEY}")
        if self.mode == "mask" and self.key is not None:
            raise ValueError("`key` is for `mode: pseudonym`")
        if self.mode == "pseudonym" and self.symbol is not None:
            raise ValueError("`symbol` is for `mode: mask`")
        if self.symbol is not None and any(c.isalnum() for c in self.symbol):
            raise ValueError("expected a symbol without letters and digits, such as ***")
        return self


class SourceMask(MaskRules):
    """Columns of a source that are masked where they are read, before anything else sees them."""

    columns: list[str] = Field(min_length=1, description="String columns, by their names after `rename`.")
