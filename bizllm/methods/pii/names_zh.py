"""Chinese people's names: a surname, and what shows that the one or two characters behind it are a given name.

Without a model and without word boundaries a bare name is weak evidence: a lead-in (姓名：), a title (先生), or two
characters that given names are made of. One bare character behind a surname is never enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bizllm.methods.pii.spans import Span
from bizllm.methods.pii.words_zh import (
    AFTER_NAME,
    CITIES,
    COMPOUND_SURNAMES,
    GIVEN,
    NOT_NAMES,
    SURNAMES,
    TITLES,
)

_H = "\u4e00-\u9fff"
_SURNAME = f"(?:{'|'.join(COMPOUND_SURNAMES)}|[{''.join(sorted(SURNAMES))}])"
_TITLED = re.compile(
    rf"(?=(?P<name>{_SURNAME}[{_H}]{{0,2}}?)(?P<title>{'|'.join(sorted(TITLES, key=lambda t: (-len(t), t)))}))"
)
_LEAD = re.compile(
    r"(?:(?:真实)?姓名|名字|收件人|收货人|联系人|寄件人|签收人|客户|顾客|用户|持卡人|户主|户名|法人|负责人|经办人|患者|病人|学生|员工|司机|骑手|乘客|"
    r"申请人|被保险人|投保人|受益人|借款人|担保人|旅客|经理|老师|医生|律师|先生|女士|本人)(?:的名字)?(?:叫做?|是|为|名叫)?[:：\s]{0,3}$"
    r"|(?:我叫|我是|名叫|叫做|我名叫|你好我是|他叫|她叫|改名|叫)[:：\s]{0,2}$|@$"
)
_BARE = re.compile(rf"(?=(?P<name>{_SURNAME}[{_H}]{{1,2}}))")
_FOREIGN = re.compile(rf"[{_H}]{{1,6}}(?:·[{_H}]{{1,6}}){{1,3}}")
_LEADING = frozenset('姓名字人户客主者我是叫为给找向和与跟由被让问请对的、，。！？；：,.!?;: \n@“"（(【[《')
_SHORT_TITLES = frozenset("姐哥总工")


class Names:
    """The rule for people; the same interface as `Rule`."""

    type = "PERSON"

    def find(self, text: str) -> Iterator[Span]:
        """Names with scores; and each sure one wherever it stands again."""
        found = [*self._titled(text), *self._bare(text)]
        found += [Span(m.start(), m.end(), "PERSON", 0.7) for m in _FOREIGN.finditer(text)]
        yield from found
        sure = {text[s.start : s.end] for s in found if s.score >= 0.6 and s.end - s.start >= 2}
        for name in sorted(sure):
            at = text.find(name)
            while at >= 0:
                yield Span(at, at + len(name), "PERSON", 0.6)
                at = text.find(name, at + 1)

    def _titled(self, text: str) -> Iterator[Span]:
        for match in _TITLED.finditer(text):
            start, end = match.span("name")
            name, title = match["name"], match["title"]
            given = name[len(_surname(name)) :]
            if name in NOT_NAMES or any(_ends_names(c) for c in given) or text[start - 1 : start + 1] in NOT_NAMES:
                continue
            alone = start == 0 or not _han(text[start - 1]) or text[start - 1] in _LEADING
            if title in _SHORT_TITLES:
                follows = text[match.end("title") : match.end("title") + 1]
                if not (alone and (not follows or not _han(follows) or follows in AFTER_NAME)) or given:
                    continue
                yield Span(start, end, "PERSON", 0.45)
            elif not given:
                yield Span(start, end, "PERSON", 0.6 if alone else 0.35)
            else:
                usual = all(c in GIVEN for c in given)
                yield Span(start, end, "PERSON", 0.85 if alone or usual else 0.4)

    def _bare(self, text: str) -> Iterator[Span]:
        for match in _BARE.finditer(text):
            start = match.start()
            surname = _surname(match["name"])
            given = match["name"][len(surname) :]
            if (
                match["name"][:2] in NOT_NAMES
                or text[max(0, start - 1) : start + 1] in NOT_NAMES
                or match["name"][:2] in CITIES
            ):
                continue
            led = bool(_LEAD.search(text, max(0, start - 12), start))
            if _ends_names(given[0]):
                continue
            two = len(given) == 2 and not _ends_names(given[1]) and text[start + 1 : start + 3] not in NOT_NAMES
            follows = text[start + len(surname) + 2 : start + len(surname) + 3]
            ends = not follows or not _han(follows) or follows in AFTER_NAME
            if led and two:
                # 我叫张伟今天…: a third character that names are not made of is the next word's.
                end = start + len(surname) + (2 if given[1] in GIVEN or ends else 1)
                yield Span(start, end, "PERSON", 0.8)
            elif led:
                yield Span(start, start + len(surname) + 1, "PERSON", 0.75)
            elif two and given[0] in GIVEN and given[1] in GIVEN:
                alone = start == 0 or not _han(text[start - 1]) or text[start - 1] in _LEADING
                yield Span(
                    start,
                    start + len(surname) + 2,
                    "PERSON",
                    0.25 + 0.2 * alone + 0.1 * ends + 0.2 * (len(surname) > 1),
                )
            elif len(surname) > 1 and given[0] in GIVEN:
                yield Span(start, start + len(surname) + 1, "PERSON", 0.4)


def _surname(name: str) -> str:
    return name[:2] if name[:2] in COMPOUND_SURNAMES else name[:1]


def _ends_names(character: str) -> bool:
    return character in AFTER_NAME and character not in GIVEN


def _han(character: str) -> bool:
    return "\u4e00" <= character <= "\u9fff"


RULES = [Names()]
