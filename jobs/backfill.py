"""Many nights as a script, for whatever submits Ray jobs:

    ray job submit --working-dir . -- python jobs/backfill.py --job jobs/nightly.yaml --from 2026-06-29 --to 2026-06-30

What is given besides --job goes to `bizllm backfill`, and the script ends with its exit status: 0 done, 1 a night
failed, 2 wrong input, 3 another run has the date, 130 interrupted.
"""

import argparse

from bizllm.cli import main

if __name__ == "__main__":
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form, allow_abbrev=False)
    parser.add_argument("--job", required=True, help="the job's YAML file")
    given, more = parser.parse_known_args()
    main("backfill", given.job, *more)
