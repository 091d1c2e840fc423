"""The words and marks by which order lines are told from what stands around them."""

from __future__ import annotations

import re

from bizllm.methods.values import measures

BREAK = re.compile(
    r"[,，、;；+&]|(?<![A-Za-z])(?:and also|and|plus|as well as|along with)(?![A-Za-z])|和|以及|还有|外加|另外|跟|及"
)
SENTENCE = re.compile(r"[。！？!?]+|(?<![.\s])\.(?=\s|$)")  # leaders ("kettle ..... 12") end none
ASKS = re.compile(
    r"(?<![A-Za-z])(?:re-?order|order|send|need|want|like|take|ship|supply|book|buy|get|reserve|require)(?![A-Za-z])"
    r"|请发|发|要|订|需要|下单|补|安排|来|采购|拿|购",
    re.I,
)
# What tells of something else than this order.
PAST = re.compile(
    r"(?<![A-Za-z])(?:last (?:week|month|time|year|delivery|order)|were|was|came|arrived|received|sold|invoices?"
    r"|thanks? (?:you )?for|already|price list)(?![A-Za-z])|上周|上次|上个?月|去年|收到|卖了|发票|感谢您|已经|价格表",
    re.I,
)
EACH = re.compile(rf"\s*(?:/|per |a |an |每|一)?\s*(?:each|apiece|(?:{measures.UNIT})(?![A-Za-z]))", re.I)
IS_AMOUNT = re.compile(r"(?:=|小计|金额|合计|total|amount)\s*[:：]?\s*$", re.I)
IS_PRICE = re.compile(r"(?:@|(?<![A-Za-z])(?:at|price)|单价|价格|每.{0,2})\s*[:：]?\s*$", re.I)
AROUND = re.compile(
    r"^(?:[\W_]|(?<![A-Za-z])(?:of|the|your|our|some|more|x|a|an|each|new|please|these|those|us|me)(?![A-Za-z])"
    r"|这次|再|各|的|订|要|来|个)+"
    r"|(?:[\W_]|(?<![A-Za-z])(?:x|each|at|quantity|qty|please|of)(?![A-Za-z])"
    r"|数量|要|来|各|共|的|订)+$",
    re.I,
)
LETTER = re.compile(r"[^\W\d_]")
# Sums stand in sentences and lines of their own, and are no articles.
SUM = re.compile(
    r"(?<![A-Za-z])(?:sub-?total|total|amount due|vat|tax|shipping|carriage)(?![A-Za-z])|合计|总计|总额|运费|税", re.I
)
ONE = re.compile(r"(?<![A-Za-z])an?\s+$", re.I)  # "a kettle"
# What else a customer may want: such a mail is no plain order, whatever lines it has.
OTHER = re.compile(
    r"(?<![A-Za-z])(?:cancel(?:led|ling)?|return(?:ed|ing)?|refund|replacements?|broken|damaged|faulty|complain(?:t|ts|ing)?"
    r"|(?:a|your) quote|quote (?:me|us|for)|quotations?|not an order|how much|instead of)(?![A-Za-z])"
    r"|取消|退货|退款|退回|换货|破损|坏了|投诉|报价|询价|多少钱|不是订单|改成",
    re.I,
)
