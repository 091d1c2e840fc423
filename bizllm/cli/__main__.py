"""`python -m bizllm.cli`."""

from bizllm.cli import main

main()
