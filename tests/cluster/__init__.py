"""A real Kubernetes made of local processes, for tests and the demo.

etcd, kube-apiserver, kube-controller-manager and kube-scheduler are the real programs. Only the node is
ours: the process kubelet (`tests.cluster.kubelet`) runs each container of a pod as a local process, so no
container runtime, no image registry and no root are needed.

    from tests.cluster import Cluster

    with Cluster() as cluster:
        cluster.kubectl("get", "nodes")

`python -m tests.cluster --help` lists the same things for a shell.
"""

from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError

__all__ = ["Cluster", "ClusterError"]
