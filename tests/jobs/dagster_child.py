"""Run by tests/jobs/test_schedulers.py with Dagster's Python: `run PARTITION`."""

import json
import sys
from pathlib import Path

import dagster as dg

sys.path.insert(0, str(Path(__file__).parents[2] / "cluster/dagster"))
import bizllm_nightly as example


def name(key: dg.AssetKey) -> str:
    return key.to_user_string()


dg.Definitions.validate_loadable(example.defs)
schedule = example.defs.get_schedule_def(f"{example.NAME}_nightly_schedule")
with dg.DagsterInstance.get() as instance:
    result = dg.materialize([example.night], partition_key=sys.argv[2], instance=instance, raise_on_error=False)
    events = [event.event_type_value for event in result.all_events]
    attempts = events.count("STEP_START") + events.count("STEP_RESTARTED")
    made = result.asset_materializations_for_node(example.NAME)
    print(
        json.dumps(
            {
                "success": result.success,
                "attempts": attempts,
                "assets": {name(m.asset_key): {k: v.value for k, v in m.metadata.items()} for m in made},
                "checks": {name(c.asset_key): c.passed for c in result.get_asset_check_evaluations()},
                "deps": {
                    name(spec.key): sorted(name(dep.asset_key) for dep in spec.deps) for spec in example.night.specs
                },
                "schedule": [schedule.cron_schedule, schedule.execution_timezone],
            },
            default=str,
        )
    )
