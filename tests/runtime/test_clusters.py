"""--distributed=auto: what JAX finds in the variables of each kind of cluster."""

import warnings

import jax
import pytest
from jax._src import distributed
from jax._src.clusters import cloud_tpu_cluster, cluster

from flaxbert.errors import ConfigError
from flaxbert.runtime import multihost

SLURM = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_NODELIST": "node[003-006],node9",
    "SLURM_NTASKS": "5",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
}
GKE = {"TPU_WORKER_HOSTNAMES": "127.0.0.1,127.0.0.2", "TPU_WORKER_ID": "1"}
TWO_SLICES = GKE | {
    "MEGASCALE_COORDINATOR_ADDRESS": "127.0.0.9",
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_SLICE_ID": "1",
}
GCE = {"agent-worker-number": "2", "worker-network-endpoints": "127.0.0.1,127.0.0.2,127.0.0.3"}


@pytest.fixture
def environment(monkeypatch):
    """Set the variables of a cluster, and no others; see what JAX connects to."""
    names = [*SLURM, *OPEN_MPI, *TWO_SLICES, "KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"]
    for name in [*names, "TPU_SKIP_MDS_QUERY"]:  # the last is set by JAX itself
        monkeypatch.delenv(name, raising=False)
    found: list[tuple[str, int, int]] = []

    class State(distributed.State):
        """JAX's state, which connects to nothing."""

        def initialize_preemption_sync_manager(self) -> None:
            pass

    class Client:
        def connect(self) -> None:
            pass

    def initialize(*explicit: object) -> None:
        state = State()
        state.initialize(*explicit)
        found.append((str(state.coordinator_address), state.num_processes, state.process_id))

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    connect = "get_distributed_runtime_client", "get_distributed_runtime_service"
    for name in connect:
        monkeypatch.setattr(distributed._jax, name, lambda *args, **options: Client())
    monkeypatch.setattr(jax.config, "update", lambda *args: None)  # which GPUs are visible

    def use(variables: dict[str, str], *, tpu: bool = False) -> list[tuple[str, int, int]]:
        for module in (cluster, cloud_tpu_cluster):
            monkeypatch.setattr(module, "running_in_cloud_tpu_vm", tpu)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return found

    return use


def metadata(values: dict[str, str]):
    return lambda key: (values.get(key, ""), 200 if key in values else 404)


@pytest.mark.parametrize(
    ("variables", "address", "count", "index"),
    [
        (SLURM, "node003:63111", 5, 3),
        (OPEN_MPI, "10.96.0.1:62624", 4, 2),
        (GKE, "127.0.0.1:8482", 2, 1),
        (TWO_SLICES, "127.0.0.9:8482", 4, 3),
    ],
    ids=["SLURM", "Open MPI", "GKE", "two slices"],
)
def test_cluster_is_found(environment, monkeypatch, variables, address, count, index):
    monkeypatch.setattr(cloud_tpu_cluster, "get_metadata", metadata({}))
    found = environment(variables, tpu=variables.keys() >= GKE.keys())
    multihost.start("auto")
    assert found == [(address, count, index)]


def test_cloud_tpu_is_found_by_its_metadata(environment, monkeypatch):
    monkeypatch.setattr(cloud_tpu_cluster, "get_metadata", metadata(GCE))
    found = environment({}, tpu=True)
    multihost.start("auto")
    assert found == [("127.0.0.1:8482", 3, 2)]


def test_explicit_hosts_are_used(environment):
    found = environment(SLURM)
    multihost.start("10.0.0.2:1234,4,1")
    assert found == [("10.0.0.2:1234", 4, 1)]


def without(variables: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name not in names}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, r"On one host, leave the flag out\. On several, give --distributed=HOST:PORT,COUNT,"),
        (
            without(SLURM, "SLURM_STEP_NODELIST"),
            r"SLURM_JOB_ID is set \(SLURM\), but SLURM_STEP_NODELIST not\. .* with srun",
        ),
        (
            without(OPEN_MPI, "OMPI_MCA_orte_hnp_uri"),
            r"but OMPI_MCA_orte_hnp_uri not\. Open MPI 5 .*\$OMPI_COMM_WORLD_SIZE,\$OMPI_COMM_WO",
        ),
        (without(GKE, "TPU_WORKER_ID"), r"\(GKE with TPUs\), but TPU_WORKER_ID not\."),
        (SLURM | {"SLURM_PROCID": "first"}, r"invalid literal.*'first'.*SLURM_JOB_ID is set"),
    ],
    ids=["nothing", "SLURM", "Open MPI", "GKE", "no number"],
)
def test_missing_variables_are_named(environment, monkeypatch, variables, message):
    monkeypatch.setattr(cloud_tpu_cluster, "get_metadata", metadata({}))
    environment(variables, tpu="TPU_WORKER_HOSTNAMES" in variables)
    with pytest.raises(ConfigError, match=r"^--distributed=auto: JAX finds no cluster here.*"):
        multihost.start("auto")
    with pytest.raises(ConfigError, match=message):
        multihost.start("auto")


def test_metadata_that_cannot_be_read_are_an_error(environment, monkeypatch):
    def fail(key: str) -> None:
        raise ConnectionError("no route to the metadata server")

    monkeypatch.setattr(cloud_tpu_cluster, "get_metadata", fail)
    environment({}, tpu=True)
    with pytest.raises(
        ConfigError, match=r"here \(no route to the metadata server\)\. On one host"
    ):
        multihost.start("auto")


def test_kubernetes_without_its_package_names_it(environment):
    environment({"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX's own, about the package
        with pytest.raises(ConfigError, match=r'JOB_COMPLETION_INDEX not\..*"jax\[k8s\]"'):
            multihost.start("auto")
