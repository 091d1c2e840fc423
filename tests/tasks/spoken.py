"""Made texts of planted topics, English and Chinese, for the tests of tasks that put texts together."""

from __future__ import annotations

from itertools import product

EN = {
    "parcel": (
        ["the parcel", "my parcel", "the courier with my parcel"],
        ["is three days late", "never came to the door", "got lost on the way", "was left with a neighbour"],
    ),
    "refund": (
        ["i asked for a refund", "send me a refund", "the refund of my money"],
        ["two weeks ago", "for the broken lamp", "to my bank account", "but nobody answered"],
    ),
    "password": (
        ["i forgot my password", "the password link", "resetting the password"],
        ["does not open the login page", "keeps failing on my phone", "locks my login", "sends no email for the login"],
    ),
}
ZH = {
    "快递": (
        ["快递", "我的快递", "那个快递员送的快递"],
        ["晚了三天还在路上", "一直没有送到家", "在路上丢件", "放在邻居家门口"],
    ),
    "退款": (
        ["我要申请退款", "退款申请", "上周的退款申请"],
        ["提交两周没到账", "到账金额少", "还没有到账", "银行账户没到账"],
    ),
    "密码": (
        ["我忘记登录密码", "登录密码", "重置登录密码"],
        ["页面打不开", "总是失败", "收不到验证码邮件", "手机上失败"],
    ),
}


def texts(of: dict[str, tuple[list[str], list[str]]], ends: list[str] | None = None) -> tuple[list[str], list[str]]:
    """(texts, their topics): every beginning with every end, and something meaningless behind it."""
    found = [
        (f"{first} {second} {end}".strip(), topic)
        for topic, parts in of.items()
        for first, second, end in product(*parts, ends or [""])
    ]
    return [text for text, _ in found], [topic for _, topic in found]
