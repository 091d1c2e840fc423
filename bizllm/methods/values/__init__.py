"""Values that stand in texts: numbers, amounts, dates, durations, quantities, as English and Chinese write them.

Every reader takes a text in which full-width characters were folded in place (`bizllm.methods.pii.folding`), and gives
spans of it with what they say. Rules, not a model: every repetition is bounded, so that no text takes long.
"""
