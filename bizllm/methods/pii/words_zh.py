"""Chinese words that names and places are told by: the project's own lists, written down for it."""

from __future__ import annotations

from bizllm.methods.pii.lists import listed

SURNAMES = frozenset(listed("surnames_zh"))
COMPOUND_SURNAMES = tuple(listed("compound_surnames_zh"))
GIVEN = frozenset(listed("given_names_zh"))
# Characters that hardly end or make a given name, but follow one: 张伟今天来电.
AFTER_NAME = frozenset(
    "的了和与在是说您你我他她它们这那有没不也都就还又很太去来到从把被给让向对跟为因所以但而且或电手住于及等将已曾正要想可能会应该请问吗呢吧啊呀"
    "哦嗯哈啦收寄打联身性出今昨明前后年月日时点分号第一二三四五六七八九十个位名先女小老总经主任务客户司机员工同学师医生买卖退换货款订单快递"
    "：:，,。.！!？?；;、（）()【】[]<>《》“”‘’\"'/\\|-—_~～@#￥%…&*+= \n\t"
)
TITLES = tuple(listed("titles_zh"))
NOT_NAMES = frozenset(listed("not_names_zh"))
PROVINCES = listed("provinces_zh")
CITIES = listed("cities_zh")
ABROAD = listed("abroad_zh")
