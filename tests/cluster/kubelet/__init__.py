"""A kubelet that runs containers as local processes.

It registers a Node, watches the pods bound to it, runs their containers, probes and restarts them, and writes
their status, with the rights of a node (`system:node:<name>`). To the API server, the scheduler and the
controllers it looks like any kubelet. What differs for the program inside a container:

* There are no images. `command` must be given; it is looked up on the harness's PATH.
* There is no mount namespace. A volume lies in a folder of the pod, and wherever `command`, `args`, an `env`
  value, `workingDir` or a probe's command names its `mountPath`, the real path stands instead. A path that is
  compiled into a program is not found.
* There is no network namespace. Each pod has its own 127.x.y.z address; a program must listen on it
  (`fieldRef: status.podIP`) and not on 0.0.0.0, or two pods clash on one port.
* A ServiceAccount token is where `KUBECONFIG` says, because the usual path can't be had.
"""
