"""A real kind cluster: several nodes in containers, real kubelets, real containers in pods.

    make kind-up
    export KUBECONFIG=$(uv run python -m tests.cluster.kind kubeconfig)
    make kind-down

Where the Docker engine has kind's node image or can pull it, this is `kind create cluster`. On a machine
that reaches no container registry everything is made here (`ways.py` decides): the engine comes from the
distribution's packages, the node image from debootstrap and the programs that tests/cluster builds, and
images are loaded, never pulled. docs/kind.md says what that does to the machine, and how it is undone.
"""
