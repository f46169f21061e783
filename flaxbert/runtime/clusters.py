"""What lacks for `--distributed=auto`: the variables by which JAX finds the hosts of a run.

JAX reads them in its own code, and only says that an address is undefined if one is absent.
"""

import dataclasses
from collections.abc import Mapping

EXPLICIT = "--distributed=HOST:PORT,{count},{index}"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A kind of cluster that JAX knows."""

    name: str
    sign: str
    """The variable that shows that a process runs in such a cluster."""
    needed: tuple[str, ...]
    """The variables that JAX needs."""
    advice: str
    """How to start the processes so that all variables are set."""


CLUSTERS = (
    Cluster(
        "SLURM",
        "SLURM_JOB_ID",
        ("SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"),
        "Start the command with srun inside the job: srun sets them for each task.",
    ),
    Cluster(
        "Open MPI",
        "OMPI_COMM_WORLD_SIZE",
        ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
        "Open MPI 5 no longer sets the first: in a script that mpirun starts, give "
        + EXPLICIT.format(count="$OMPI_COMM_WORLD_SIZE", index="$OMPI_COMM_WORLD_RANK")
        + ".",
    ),
    Cluster(
        "GKE with TPUs",
        "TPU_WORKER_HOSTNAMES",
        ("TPU_WORKER_ID",),
        "GKE sets both in a Job with a headless service whose pods request all TPUs of a node.",
    ),
    Cluster(
        "Kubernetes",
        "KUBERNETES_SERVICE_HOST",
        ("JOB_COMPLETION_INDEX",),
        'Set completionMode: Indexed in the Job, and install the package: pip install "jax[k8s]".',
    ),
)


def advice(environment: Mapping[str, str]) -> str:
    """Return what to change so that JAX finds the other hosts, by the variables of a process."""
    for cluster in CLUSTERS:
        if cluster.sign in environment:
            missing = [name for name in cluster.needed if not environment.get(name)]
            lack = f", but {', '.join(missing)} not" if missing else ""
            return f"{cluster.sign} is set ({cluster.name}){lack}. {cluster.advice}"
    explicit = EXPLICIT.format(count="COUNT", index="INDEX")
    return f"On one host, leave the flag out. On several, give {explicit}."
