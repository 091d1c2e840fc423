"""A compression as a script, for whatever submits Ray jobs:

    ray job submit --working-dir . -- python jobs/compress.py --model registry:NAME@champion --compress FILE.yaml

What is given besides these two goes to `bizllm compress`, and the script ends with its exit status: 0 done, 1 failed,
2 wrong input, 130 interrupted.
"""

import argparse

from bizllm.cli import main

if __name__ == "__main__":
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form, allow_abbrev=False)
    parser.add_argument("--model", required=True, help="the model that is made smaller")
    parser.add_argument("--compress", required=True, help="the compress file")
    given, more = parser.parse_known_args()
    main("compress", given.model, given.compress, *more)
