"""Rules for Chinese texts: phones, identity numbers, accounts, plates, chat accounts, dates of birth, addresses.

Between digits and Han there is no word boundary, so that what may stand beside a number is said by look-arounds.
"""

from __future__ import annotations

import re

from bizllm.methods.pii import checks
from bizllm.methods.pii.rules import Rule, words
from bizllm.methods.pii.rules_any import CARD_WORDS, PHONE_WORDS
from bizllm.methods.pii.words_zh import ABROAD, CITIES, PROVINCES

_H = "\u4e00-\u9fff"
_L, _R = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
_PLATE_REGION = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_DIGITS = "0-9零〇一二三四五六七八九十百"


def _any(listed: list[str]) -> str:
    return "|".join(sorted(listed, key=lambda name: (-len(name), name)))


_PROVINCE = rf"(?:(?:{_any(PROVINCES)})(?:省|市|(?:壮族|回族|维吾尔)?自治区|特别行政区)?)"
_CITY = rf"(?:(?:{_any(CITIES)})市?)"
# A county, district or town: few characters before its kind, none of them a word that leads to an address.
_C = rf"(?:(?![在到于住是至去往从来的])[{_H}])"
_DISTRICT = rf"(?:{_C}{{1,6}}?(?:新区|开发区|自治县|自治州|区|县|旗|市))"
_TOWN = rf"(?:{_C}{{1,6}}?(?:街道|镇|乡|村))"
_ROAD = rf"(?:{_C}{{1,8}}?(?:大道|大街|胡同|公路|路|街|巷|弄|里|道)(?:[东南西北中]段)?)"
_NUMBER = rf"(?:[{_DIGITS}]{{1,6}}(?:之[{_DIGITS}]{{1,3}})?(?:号(?:院|楼)?|弄))"
_PLACES = "小区|花园|家园|公寓|大厦|大楼|广场|新村|苑|城|园|府|中心|宿舍|校区|大学|学院|医院"
_PLACE = rf"(?:[{_H}A-Za-z0-9]{{1,12}}?(?:{_PLACES}))"
_ROOMS = "号楼|栋|幢|座|期|单元|层|楼|室|房|户|号"
_ROOM = rf"(?:[A-Za-z{_DIGITS}]{{1,4}}(?:{_ROOMS})|\d{{1,3}}-\d{{1,4}}(?:-\d{{1,4}})?|\d{{3,4}}(?!\d))"
_S = "[ ,]?"
_REST = rf"(?:{_S}{_PLACE})?(?:{_S}{_ROOM}){{0,5}}"

RULES = [
    Rule(
        "PHONE",
        re.compile(rf"{_L}(?:(?:\+|00)?86[ \-]?)?1[3-9]\d(?:[ \-]?\d{{4}}){{2}}(?!\d)"),
        0.85,
        context=PHONE_WORDS,
    ),
    Rule("PHONE", re.compile(r"(?<![A-Za-z0-9])1[3-9]\d{2}[ \-]\d{3}[ \-]\d{4}(?!\d)"), 0.75, context=PHONE_WORDS),
    Rule(
        "PHONE",
        re.compile(
            rf"{_L}(?:\(0\d{{2,3}}\)|0\d{{2,3}}[ \-])[ \-]?[2-9]\d{{2,3}}[ \-]?\d{{4}}(?:[转\-]\d{{1,5}})?(?!\d)"
        ),
        0.7,
        context=PHONE_WORDS,
    ),
    Rule("PHONE", re.compile(r"(?<![A-Za-z0-9\-])[48]00[ \-]?\d{3}[ \-]?\d{4}(?!\d)"), 0.5, context=PHONE_WORDS),
    Rule(
        "PHONE",
        re.compile(r"(?<![A-Za-z0-9.\-])(?:0\d{2,3})?[2-9]\d{6,7}(?![\d.])"),
        0.15,
        context=words("电话|座机|固话|热线|传真|致电|拨打|来电"),
        needs=True,
    ),
    Rule("CN_ID", re.compile(rf"{_L}\d{{6}} ?\d{{8}} ?\d{{3}}[\dXx]{_R}"), 0.98, checks.cn_id),
    Rule(
        "CN_ID",
        re.compile(rf"{_L}[1-8]\d{{5}}(?:18|19|20)\d{{2}}[01]\d[0-3]\d{{4}}[\dXx*]{_R}"),
        0.2,
        context=words("身份证|证件号|公民身份|id"),
        needs=True,
    ),
    Rule(
        "CARD",
        re.compile(r"(?<![\d.])(?:4|5|6|9)\d{3}(?:[ \-]?\d{4}){2}(?:[ \-]?\d{1,4}){1,2}(?!\d)"),
        0.7,
        checks.luhn,
        CARD_WORDS,
    ),
    Rule(
        "PASSPORT",
        re.compile(rf"{_L}(?:[EG]\d{{8}}|E[A-Z]\d{{7}}|[DSPH]E?\d{{7,8}}){_R}", re.I),
        0.3,
        context=words("护照|通行证|passport"),
    ),
    Rule(
        "PLATE",
        re.compile(rf"[{_PLATE_REGION}][A-HJ-NP-Z][·. \-]?[A-HJ-NP-Z0-9]{{4}}[A-HJ-NP-Z0-9挂学警港澳]{_R}", re.I),
        0.85,
    ),
    Rule(
        "PLATE",
        re.compile(rf"[{_PLATE_REGION}][A-HJ-NP-Z][·. \-]?(?:[DF][A-HJ-NP-Z0-9]\d{{4}}|\d{{5}}[DF]){_R}", re.I),
        0.9,
    ),
    Rule(
        "WECHAT",
        re.compile(
            r"(?:微信号?|威信|薇信|VX|V信|WeChat)(?:号|是|为|ID|\s){0,3}[: ]{0,3}"
            r"(?P<at>[A-Za-z][A-Za-z0-9_\-]{5,19}|1[3-9]\d{9})(?![A-Za-z0-9_])",
            re.I,
        ),
        0.85,
    ),
    Rule(
        "QQ",
        re.compile(r"(?:QQ|扣扣|企鹅号|Q群)(?:号码?|群|是|为|\s){0,3}[: ]{0,3}(?P<at>[1-9]\d{4,10})(?!\d)", re.I),
        0.85,
    ),
    Rule(
        "BIRTH_DATE",
        re.compile(
            r"(?<!\d)(?:1[89]|20)\d{2}(?:年\d{1,2}月(?:\d{1,2}[日号]?)?|[\-/.]\d{1,2}[\-/.]\d{1,2})(?!\d)"
            r"|[〇零一二三四五六七八九]{4}年[一二三四五六七八九十]{1,2}月[一二三四五六七八九十]{1,3}日"
        ),
        0.2,
        context=words("出生|生日|生于|诞辰|出世|生辰"),
        needs=True,
    ),
    Rule("AGE", re.compile(r"(?<![\d.])(?P<at>\d{1,3})(?:周岁|岁)(?!以上|以下|半)"), 0.5),
    Rule(
        "BANK_ACCOUNT",
        re.compile(r"(?<![A-Za-z0-9.])\d{4}(?:[ \-]?\d{3,4}){2,5}(?!\d)"),
        0.2,
        lambda text: 10 <= sum(c.isdigit() for c in text) <= 24,
        words("账号|帐号|账户|开户行|对公|卡号|银行卡"),
        needs=True,
    ),
    # An address: from any level down to a number, a building or a room.
    Rule(
        "ADDRESS",
        re.compile(rf"{_PROVINCE}{_S}{_CITY}?{_S}{_DISTRICT}{{0,2}}{_S}{_TOWN}?{_S}{_ROAD}?{_S}{_NUMBER}{_REST}"),
        0.85,
    ),
    Rule("ADDRESS", re.compile(rf"{_CITY}{_S}{_DISTRICT}{{0,2}}{_S}{_TOWN}?{_S}{_ROAD}?{_S}{_NUMBER}{_REST}"), 0.85),
    Rule(
        "ADDRESS",
        re.compile(rf"(?:{_PROVINCE}|{_CITY}){_S}{_CITY}?{_S}{_DISTRICT}{_S}(?:{_TOWN}{_S}{_ROAD}?|{_ROAD}){_REST}"),
        0.75,
    ),
    Rule(
        "ADDRESS",
        re.compile(rf"(?:{_PROVINCE}|{_CITY}){_S}{_CITY}?{_S}{_DISTRICT}{_S}{_PLACE}(?:{_S}{_ROOM}){{1,5}}"),
        0.75,
    ),
    Rule("ADDRESS", re.compile(rf"{_DISTRICT}{_S}{_TOWN}?{_S}{_ROAD}{_S}{_NUMBER}{_REST}"), 0.75),
    Rule("ADDRESS", re.compile(rf"{_ROAD}{_S}{_NUMBER}{_REST}"), 0.65),
    Rule(
        "ADDRESS",
        re.compile(rf"{_PLACE}{_S}(?:[A-Za-z{_DIGITS}]{{1,4}}(?:号楼|栋|幢|座|单元)){{1,2}}(?:{_S}{_ROOM}){{0,3}}"),
        0.6,
    ),
    Rule(
        "ADDRESS",
        re.compile(
            rf"(?:地址|住址|住在|家住|户籍|籍贯)(?:是|为|在|改成|改为)?[: ]{{0,3}}(?P<at>[{_H}A-Za-z0-9\-#()]{{4,60}})"
        ),
        0.6,
        lambda text: any(c in text for c in "省市区县路街号村镇楼室栋弄巷"),
    ),
    Rule("LOCATION", re.compile(rf"(?:{_any([*PROVINCES, *CITIES, *ABROAD])})(?:省|市)?"), 0.5),
    Rule(
        "LOCATION", re.compile(rf"(?:(?:{_any(PROVINCES)})(?:省|市)?)?(?:{_any(CITIES)})市?{_C}{{1,4}}?(?:区|县)"), 0.6
    ),
]
