"""Personal data in texts: rules that find it, checksums, and what is put in its place.

`rules_*` and `names_*` are plain data and regular expressions; `recognizers` hands them to Presidio's analyzer, which
`engine` builds once in a process; `masker` is what a task or a source uses.
"""
