"""Whether gangs get on where they could wait for ever: `make bench-gang-liveness`.

Two scenes on a real API server, for each strategy and for kube-scheduler's own gangs: twenty gangs on a
cluster that fits two, and a large gang among single pods that take every place that comes up.
"""
