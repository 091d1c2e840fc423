"""JSON Schema of the YAML files, for editors: completion, hover texts and red lines while a job is written."""

from __future__ import annotations

from typing import Any

from bizllm.errors import Fault, UserError, nearest
from bizllm.jobs.job import NAME, Job
from bizllm.tasks.base import task_class, task_names

_KINDS = ("job", "finetune", "compress")
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_VARIABLE = {"type": "string", "pattern": r"\$\{", "description": "${NAME} or ${NAME:-default}"}


def json_schema(kind: str = "job") -> dict[str, Any]:
    """JSON Schema (2020-12) of a job file with the settings of every task, told apart by `task`; or of a training file,
    or one of `compress`. Raises UserError."""
    if kind not in _KINDS:
        raise UserError(Fault("schema", kind, f"expected one of {', '.join(_KINDS)}", nearest(kind, _KINDS)))
    if kind == "finetune":
        from bizllm.train.recipe import Recipe

        recipe: dict[str, Any] = _with_variables(Recipe.model_json_schema())
        return {"$schema": _DIALECT, **recipe, "title": "bizllm training file"}
    if kind == "compress":
        from bizllm.train.compression import Compression

        compression: dict[str, Any] = _with_variables(Compression.model_json_schema())
        return {"$schema": _DIALECT, **compression, "title": "bizllm compression file"}
    schema = Job.model_json_schema()
    definitions: dict[str, Any] = schema["$defs"]
    definitions.pop("TaskSettings", None)
    steps = []
    for name in task_names():
        task = task_class(name)
        step = task.Settings.model_json_schema()
        for inner, definition in step.pop("$defs", {}).items():
            assert definitions.setdefault(inner, definition) == definition, f"two settings are called {inner}"
        step["properties"]["task"] = {"const": name, "description": task.summary}
        step["required"] = ["task", *(key for key in step.get("required", []) if key != "task")]
        definitions[task.Settings.__name__] = step
        steps.append({"$ref": f"#/$defs/{task.Settings.__name__}"})
    schema["properties"]["steps"]["additionalProperties"] = {"oneOf": steps, "discriminator": {"propertyName": "task"}}
    for section in ("sources", "models", "steps"):
        schema["properties"][section]["propertyNames"] = {"pattern": f"^{NAME}$", "not": {"const": "runs"}}
    schema["properties"]["name"]["pattern"] = rf"^({NAME}|.*\$\{{.*)$"
    variables: dict[str, Any] = _with_variables(schema)
    return {"$schema": _DIALECT, **variables, "title": "bizllm job"}


def _with_variables(schema: Any) -> Any:
    """The same schema where numbers and booleans may also come from an environment variable."""
    if isinstance(schema, list):
        return [_with_variables(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") in ("integer", "number", "boolean"):
        about = {key: schema[key] for key in ("title", "description", "default") if key in schema}
        return {**about, "anyOf": [{key: schema[key] for key in schema if key not in about}, _VARIABLE]}
    return {key: _with_variables(part) for key, part in schema.items()}
