"""Check manifests against the schemas in packages of others; run it in an environment with these.

python check_schemas.py jobset|compose|sky FILE.json
"""

import importlib.util
import json
import sys
from pathlib import Path


def jobset(manifest: dict) -> None:
    """Check with the models of Kubeflow, which contain JobSet, Job and Pod of Kubernetes."""
    from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

    # They leave out fields that they do not have, so a wrong one is gone on the way back.
    again = JobsetV1alpha2JobSet.from_dict(manifest).to_dict()
    lost = sorted(paths(manifest) - paths(again))
    assert not lost, lost


def paths(value: object, path: str = "") -> set[str]:
    """Return the path of each value in a manifest, with the value."""
    if isinstance(value, dict):
        return {text for key, part in value.items() for text in paths(part, f"{path}.{key}")}
    if isinstance(value, list):
        return {text for key, part in enumerate(value) for text in paths(part, f"{path}[{key}]")}
    return {f"{path}={float(value) if isinstance(value, int) else value}"}


def compose(manifest: dict) -> None:
    """Check with the schema that docker-compose 1.29 contains."""
    import jsonschema

    package = importlib.util.find_spec("compose")  # not imported: it lacks what it depends on
    schema = Path(package.submodule_search_locations[0], "config/compose_spec.json")
    jsonschema.validate(manifest, json.loads(schema.read_text()))


def sky(task: dict) -> None:
    """Check with SkyPilot's schemas of a task and of its resources."""
    import jsonschema
    from sky.utils import schemas

    jsonschema.validate(task, schemas.get_task_schema())
    jsonschema.validate(task["resources"], schemas.get_resources_schema())


if __name__ == "__main__":
    {"jobset": jobset, "compose": compose, "sky": sky}[sys.argv[1]](
        json.loads(Path(sys.argv[2]).read_text())
    )
