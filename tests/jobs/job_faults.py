"""A good job file, and what each one fault in it is told as."""

from __future__ import annotations

GOOD = """\
name: shop
timezone: Asia/Shanghai
warehouse: {path: ../out}
sources:
  tickets:
    path: data/tickets
    key: [id]
models:
  encoder: builtin:minilm
steps:
  notes:
    task: toy
    input: tickets
    text: body
    model: encoder
"""


A_NAME = "expected a name of a-z, 0-9 and single _, starting with a letter, at most 63 long"


ONE_FAULT = {
    "unknown key": (
        "text: body",
        "text: body\n    txt: x",
        ":15 steps.notes.txt: unknown key 'txt'; did you mean 'text'?",
    ),
    "unknown key on top": (
        "name: shop",
        "name: shop\nsource: {}",
        ":2 source: unknown key 'source'; did you mean 'sources'?",
    ),
    "unknown key in a list": (
        "text: body",
        "text: body\n    rules: [{when: a, label: b, lable: c}]",
        ":15 steps.notes.rules[0].lable: unknown key 'lable'; did you mean 'label'?",
    ),
    "missing key": ("    text: body\n", "", ":11 steps.notes.text: 'text' is missing (The text column)"),
    "missing name": ("name: shop\n", "", ":1 name: 'name' is missing (Names the tables: `<job>.<step>`)"),
    "wrong type": ("text: body", "text: 12", ":14 steps.notes.text: 12: expected text; put it in quotes"),
    "list for text": ("text: body", "text: [a]", ":14 steps.notes.text: expected text, not a list"),
    "word for number": (
        "text: body",
        "text: b\n    horizon: many",
        ":15 steps.notes.horizon: 'many': expected a whole number",
    ),
    "yes for number": ("text: body", "text: b\n    horizon: yes", ":15 steps.notes.horizon: True: expected a number"),
    "horizon 0": (
        "text: body",
        "text: b\n    horizon: 0",
        ":15 steps.notes.horizon: 0: expected a number greater than 0",
    ),
    "union": ("text: body", "text: b\n    k: some", ":15 steps.notes.k: 'some': expected a whole number or 'auto'"),
    "item of a union": ("key: [id]", "key: [1]", ":7 sources.tickets.key[0]: 1: expected text; put it in quotes"),
    "item": ("text: body", "text: b\n    levels: [0.5, x]", ":15 steps.notes.levels[1]: 'x': expected a number"),
    "time zone": (
        "Asia/Shanghai",
        "Asia/Shangai",
        ":2 timezone: 'Asia/Shangai': expected an IANA time zone; did you mean 'Asia/Shanghai'?",
    ),
    "time zone is a path": (
        "Asia/Shanghai",
        "../etc",
        ":2 timezone: '../etc': expected an IANA time zone; such as Asia/Shanghai",
    ),
    "unknown task": (
        "task: toy",
        "task: forcast",
        ":12 steps.notes.task: 'forcast': expected a task: one of forecast, toy; did you mean 'forecast'?",
    ),
    "no task": ("    task: toy\n", "", ":11 steps.notes.task: 'task' is missing"),
    "unknown input": (
        "input: tickets",
        "input: tickest",
        ":13 steps.notes.input: 'tickest': no such source or step; there are tickets; did you mean 'tickets'?",
    ),
    "unknown model": (
        "model: encoder",
        "model: encodr",
        ":15 steps.notes.model: 'encodr': no such model; expected a name in `models` (encoder), or a URI such as "
        "builtin:minilm; did you mean 'encoder'?",
    ),
    "unknown built-in": (
        "builtin:minilm",
        "builtin:minlm",
        ":9 models.encoder: 'builtin:minlm': expected a built-in model: one of minilm; did you mean 'minilm'?",
    ),
    "model folder": ("builtin:minilm", "path:nowhere", ":9 models.encoder: 'path:nowhere': no such folder"),
    "duplicate key": (
        "text: body",
        "text: body\n    task: toy",
        ":15 steps.notes.task: the key 'task' is there twice, first in line 12",
    ),
    "duplicate model": (
        "models:",
        "models:\n  encoder: builtin:minilm",
        ":10 models.encoder: the key 'encoder' is there twice, first in line 9",
    ),
    "step is a list": (
        "steps:",
        "steps:\n  more: [1]",
        ":11 steps.more: expected a mapping that starts with `task: …`, not a list",
    ),
    "name": (
        "notes:",
        "my-notes:",
        f":11 steps.my-notes: 'my-notes': {A_NAME}",
    ),
    "two underscores": (
        "name: shop",
        "name: a__b",
        f":1 name: 'a__b': {A_NAME}",
    ),
    "runs": ("notes:", "runs:", ":11 steps.runs: 'runs': the name 'runs' is taken by the table of runs"),
    "name clash": (
        "notes:",
        "tickets:",
        ":11 steps.tickets: 'tickets': a source has this name too; a step needs one of its own",
    ),
    "path and table": (
        "path: data/tickets",
        "path: data/tickets\n    table: a.b",
        ":5 sources.tickets: expected either `path` or `table`",
    ),
    "secret": (
        "{path: ../out}",
        "{path: ../out, properties: {s3.secret-access-key: hunter2}}",
        ":3 warehouse.properties.s3.secret-access-key: holds a secret; expected an environment variable such as "
        "${WAREHOUSE_SECRET}",
    ),
    "secret as default": (
        "{path: ../out}",
        "{path: ../out, properties: {password: '${NOPE:-hunter2}'}}",
        ":3 warehouse.properties.password: holds a secret; expected an environment variable such as "
        "${WAREHOUSE_SECRET}",
    ),
    "password in uri": (
        "{path: ../out}",
        "{path: ../out, uri: 'postgresql://me:hunter2@db/x'}",
        ":3 warehouse.uri: holds a password; expected a variable: user:${DB_PASSWORD}@host",
    ),
    "unset variable": (
        "data/tickets",
        "${NOT_SET_ANYWHERE}/x",
        ":6 sources.tickets.path: '${NOT_SET_ANYWHERE}/x': the environment variable NOT_SET_ANYWHERE is not set; "
        "set it, or write ${NOT_SET_ANYWHERE:-default}",
    ),
    "bad variable": (
        "data/tickets",
        "${not-good}",
        ":6 sources.tickets.path: '${not-good}': expected ${NAME} or ${NAME:-default}; write $${ for the characters ${",
    ),
    "tag": (
        "text: body",
        "text: !!python/name:os.system x",
        ":14 steps.notes.text: '!!python/name:os.system': expected text, a number, a list or a mapping, without a tag",
    ),
    "key is a list": (
        "text: body",
        "text: body\n    [a]: x",
        ":11 steps.notes: expected a name before the colon in line 15",
    ),
    "no steps": (GOOD[GOOD.index("steps:") :], "steps: {}\n", ":10 steps: expected at least 1 of them, not a mapping"),
    "steps missing": (GOOD[GOOD.index("steps:") :], "", ":1 steps: 'steps' is missing (The work, by name)"),
}
