"""The nightly job as a script, for `ray job submit -- python jobs/nightly.py --job jobs/demo.yaml --date 2026-06-30`.

Ends with bizllm's exit status, so that the scheduler that waits for the job knows how the night went.
"""

import argparse
import json
import sys

import bizllm
from bizllm.errors import Cancelled, LockHeld, RunError, UserError


def main() -> int:
    """0 done, 1 failed, 2 wrong input, 3 another run has the date, 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", required=True, help="the job's YAML file")
    parser.add_argument("--date", help="run date, YYYY-MM-DD; yesterday in the job's time zone by default")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="steps.x.y=v")
    parser.add_argument("--only", action="append", default=[], metavar="STEP")
    parser.add_argument("--address", help="a Ray cluster; inside a Ray job that job's own by default")
    given = parser.parse_args()
    try:
        result = bizllm.run(given.job, date=given.date, sets=given.sets, only=given.only, address=given.address)
    except UserError as fault:
        print(fault, file=sys.stderr)
        return 2
    except LockHeld as fault:
        print(fault, file=sys.stderr)
        return 3
    except Cancelled:
        return 130
    except RunError as fault:
        print(fault, file=sys.stderr)
        return 1
    print(json.dumps(result.to_dict(), ensure_ascii=False, indent=2))
    return {"failed": 1, "cancelled": 130}.get(result.state, 0)


if __name__ == "__main__":
    sys.exit(main())
