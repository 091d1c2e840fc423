"""Whether a text speaks well or badly of something, in English and Chinese, without a model that was trained elsewhere.

`lists/` has the words, `lexicon` reads them, `cues` finds them in clauses with what negates or stresses them, `model`
weighs what was found, `aspects` says of what it was said.
"""
