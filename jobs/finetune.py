"""A training as a script, for whatever submits Ray jobs:

    ray job submit --working-dir . -- python jobs/finetune.py --train jobs/finetune_intent.yaml

What is given besides --train goes to `bizllm finetune`, and the script ends with its exit status: 0 done, 1 failed,
2 wrong input, 130 interrupted.
"""

import argparse

from bizllm.cli import main

if __name__ == "__main__":
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form, allow_abbrev=False)
    parser.add_argument("--train", required=True, help="the training file")
    given, more = parser.parse_known_args()
    main("finetune", given.train, *more)
