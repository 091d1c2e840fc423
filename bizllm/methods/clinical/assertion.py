"""Whether a note says that something is there: NegEx (Chapman et al. 2001), with ConText's relatives and possibilities
(Harkema et al. 2009), by cues and scopes of English and Chinese."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

Status = Literal["present", "absent", "possible", "family"]

# Longest first, so that "no evidence of" is not "no"; what only looks like a cue comes before and takes its place.
_PSEUDO = (
    r"no (?:significant )?(?:increase|change|improvement|further|longer)|not (?:only|certain|necessarily|drain|sure)"
    r"|gram negative|without (?:difficulty|further|incident)|no cause|not (?:respond|improv|resolv|tolerat)\w*"
    r"|无力|无痛|无症状|未来|未婚|未育|不适|不明|不详|不佳|不规则|不稳|不全|不足|不良"
)
_ABSENT = (
    r"no evidence of|no signs? of|no history of|no complaints? of|negative for|free of|absence of|ruled out for"
    r"|rules out|resolved|denie[sd]|denying|denial of|without(?: any)?|never (?:had|has)|does not have|do not have"
    r"|did not have|has not had|not|no|nor|neither|non|w/o|lack of|lacks"
    r"|否认有?|未见明显|未见|未闻及|未触及|未及|未诉|没有|并无|无明显|无|不伴|未发现|未出现|未查及|未|已排除|排除"
)
_POSSIBLE = (
    r"possibl[ey]|probabl[ey]|likely|suspected|suspicious for|suspicion of|question of|questionable|concern(?:ing)? for"
    r"|rule out|r/o|may have|might have|could be|versus|vs\.?|evaluat\w+ for"
    r"|可能|疑似|疑|考虑|待排|不除外|不能除外|不排除|拟诊"
)
_FAMILY = (
    r"(?:family|paternal|maternal) history(?: is)?(?: positive| significant)?(?: for| of)?"
    r"|\b(?:mother|father|brother|sister|grandmother|grandfather|aunt|uncle|parents|siblings)\b"
    r"|父亲|母亲|父母|祖父|祖母|外祖父|外祖母|兄弟|姐妹|哥哥|姐姐|家族中"
)
_BEFORE = re.compile(
    rf"(?<![a-z])(?:(?P<pseudo>{_PSEUDO})|(?P<family>{_FAMILY})|(?P<possible>{_POSSIBLE})|(?P<absent>{_ABSENT}))(?![a-z])",
    re.I,
)
_AFTER = re.compile(
    r"(?P<possible>(?:(?:is|was|are|were) )?(?:possible|suspected|likely|not ruled out|to be ruled out)"
    r"|待查|待排|可能|\?|？)"
    r"|(?P<absent>(?:was|were|is|are|has been|have been) (?:ruled out|excluded|absent|negative|denied"
    r"|not (?:seen|found|noted|present|identified|appreciated))|(?:is |was )?unlikely"
    r"|[:：]? ?(?:negative|absent|none|denies)\b|阴性|（[-—–]）|\([-—–]\)|已排除|除外)",
    re.I,
)
# A cue reaches to the end of its clause.
_ENDS = re.compile(
    r"[.;。；！？，]|\n|(?<![a-z])(?:but|however|except|although|though|nevertheless|yet|aside from|apart from|because"
    r"|since|secondary to|due to|who|which|presents?|presented|complain\w*|report\w*|states?|notes?|admits?|has"
    r"|have|had"
    r"|is|was|were|are|did|does|develop\w*|show\w*|reveal\w*|demonstrat\w*)(?![a-z])"
    r"|但|除|伴有|可见|出现|有(?!关)|诉",
    re.I,
)
_REACH_AFTER = 40  # characters behind a term in which a cue counts


def status(text: str, start: int, end: int, clause: tuple[int, int], of_family: bool = False) -> Status:
    """What the note says of text[start:end]. clause: the sentence that it stands in. of_family: of a section that tells
    of relatives."""
    whole, at = text[clause[0] : clause[1]], start - clause[0]
    found: Status | None = None
    for kind, cue_end in _cues(whole):
        if cue_end > at:
            break
        # A relative stays one, whatever else is said of him: "his mother may have had".
        reaches = kind != "pseudo" and not (found == "family" and kind == "possible")
        if reaches and not _stops(whole[cue_end:at], kind == "family"):
            found = kind  # type: ignore[assignment]
    if found is None:
        behind = text[end : min(clause[1], end + _REACH_AFTER)]
        cue_after = _AFTER.match(behind.lstrip(" )")) or _AFTER.search(_first_clause(behind))
        found = cue_after.lastgroup if cue_after else None  # type: ignore[assignment]
    if of_family and found in (None, "possible"):
        return "family"
    return found or "present"


@lru_cache(maxsize=64)  # a clause tells many things
def _cues(clause: str) -> list[tuple[str | None, int]]:
    """(kind, where it ends) of each cue."""
    return [(cue.lastgroup, cue.end()) for cue in _BEFORE.finditer(clause)]


def _stops(between: str, family: bool) -> bool:
    """Whether the clause ends between a cue and the term. Of a relative verbs and commas are told, too."""
    if family:
        return bool(re.search(r"[.;。；]|\n|\bpatient\b|患者", between))
    return bool(_ENDS.search(between))


def _first_clause(behind: str) -> str:
    """Up to where another thing is told."""
    return re.split(r"[,.;，。；、\n]|\b(?:and|or|but|with|he|she|patient)\b", behind, maxsplit=1)[0]
