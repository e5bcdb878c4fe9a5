"""The dashboard of single pods: how many, how fast, what waits and why, and how full memory is."""

from __future__ import annotations

from tests.monitoring.panels import (
    JOB,
    RATE,
    Board,
    Kind,
    Panel,
    Query,
    Row,
    counted,
    percentiles,
    select,
    standing,
    waiting,
)

ALLOCATABLE = f"max({select('wholepod_node_memory_bytes', state='allocatable')})"
REQUESTED = f"max({select('wholepod_node_memory_bytes', state='requested')})"
FREE = f"({ALLOCATABLE} - {REQUESTED})"
SLI = "scheduler_pod_scheduling_sli_duration_seconds"

OVERVIEW = Row(
    "Overview",
    [
        Panel(
            "Leaders",
            [Query(f"sum(leader_election_master_status{{{JOB}}})", "leaders")],
            "Replicas that hold the lease: 1, or 0 for some seconds while another takes over. No data where "
            "leader election is off.",
            kind=Kind.NUMBER,
            width=4,
            warn_above=2,
        ),
        Panel(
            "Pods placed",
            [counted("scheduler_schedule_attempts_total", "", result="scheduled")],
            "Pods bound a second.",
            unit="ops",
            kind=Kind.NUMBER,
            width=4,
        ),
        Panel(
            "Pods waiting",
            [waiting("scheduler_pending_pods", legend="pods")],
            "In all queues.",
            kind=Kind.NUMBER,
            width=4,
        ),
        Panel(
            "Unschedulable pods",
            [waiting("scheduler_pending_pods", legend="pods", queue="unschedulable")],
            "Pods that no node has room for, until something changes.",
            kind=Kind.NUMBER,
            width=4,
            warn_above=1,
        ),
        Panel(
            "Time to place, 99 %",
            percentiles(SLI, quantiles=[0.99]),
            "From a pod's first appearance to its bind, over all attempts.",
            unit="s",
            kind=Kind.NUMBER,
            width=4,
            warn_above=10,
        ),
        Panel(
            "Memory requested",
            [Query(f"{REQUESTED} / {ALLOCATABLE}", "requested")],
            "Of the allocatable memory of all nodes.",
            unit="percentunit",
            kind=Kind.NUMBER,
            width=4,
            warn_above=0.9,
        ),
    ],
)

THROUGHPUT = Row(
    "Throughput",
    [
        Panel(
            "Pods placed",
            [counted("scheduler_schedule_attempts_total", "profile", result="scheduled")],
            "Pods bound a second, by profile.",
            unit="ops",
            kind=Kind.STACK,
        ),
        Panel(
            "Attempts by result",
            [counted("scheduler_schedule_attempts_total", "result")],
            "unschedulable: no node fits. error: a plugin failed, or the bind was refused; should be rare.",
            unit="ops",
        ),
        Panel(
            "Requests to the API server",
            [counted("rest_client_requests_total", "code")],
            "By status code; `<error>` where no answer came. 409 and 404 are ordinary: somebody else was "
            "quicker.",
            unit="reqps",
            kind=Kind.STACK,
        ),
        Panel(
            "Binds by what became of them",
            [counted("wholepod_binds_total", "outcome")],
            "BoundElsewhere: another scheduler was quicker. Gone: the pod was deleted meanwhile.",
            unit="ops",
        ),
        Panel(
            "Preemption",
            [
                counted("wholepod_victims_total", "outcome"),
                Query(
                    f"sum(rate(scheduler_preemption_attempts_total{{{JOB}}}{RATE}))",
                    "pods that looked for victims",
                ),
            ],
            "Victims by what became of them, and pods for which victims were looked for.",
            unit="ops",
        ),
        Panel(
            "Overfilled nodes",
            [counted("wholepod_bind_races_total", "outcome")],
            "Pods on nodes that another scheduler's binds and ours overfilled. More than a few mean that "
            "nodes are shared that should be partitioned.",
            unit="ops",
        ),
    ],
)

LATENCY = Row(
    "Latency",
    [
        Panel(
            "Time to place a pod",
            percentiles(SLI),
            "From a pod's first appearance, ungated, to its bind, over all attempts: what users feel. "
            "Waiting for room counts.",
            unit="s",
        ),
        Panel(
            "Attempts that ended in a bind",
            percentiles("scheduler_scheduling_attempt_duration_seconds", result="scheduled"),
            "From the start of the decision to the end of the bind. Far above the decision: the API server, "
            "or the limit on writes.",
            unit="s",
        ),
        Panel(
            "Decisions",
            percentiles("scheduler_scheduling_algorithm_duration_seconds"),
            "Time to decide for one pod.",
            unit="s",
        ),
        Panel(
            "Requests to the API server, 99 %",
            percentiles("rest_client_request_duration_seconds", "verb", [0.99]),
            "By method.",
            unit="s",
        ),
        Panel(
            "Attempts until bound",
            percentiles("scheduler_pod_scheduling_attempts"),
            "How often a pod was tried until it was bound.",
        ),
        Panel(
            "Writes sent again, or given up",
            [
                Query(f"sum(rate(wholepod_write_retries_total{{{JOB}}}{RATE}))", "sent again"),
                Query(
                    f"sum by (kind) (rate(wholepod_writes_shed_total{{{JOB}}}{RATE}))", "given up: {{kind}}"
                ),
            ],
            "Status patches and events are given up when there are too many; binds never are.",
            unit="ops",
        ),
    ],
)

QUEUES = Row(
    "Queues",
    [
        Panel(
            "Waiting pods",
            [waiting("scheduler_pending_pods", "queue")],
            "active: to be decided now. backoff: to be tried again soon. unschedulable: no node has room. "
            "gated: somebody else's gates. incomplete and tentative: members of gangs.",
            kind=Kind.STACK,
        ),
        Panel(
            "Unschedulable, and why",
            [waiting("scheduler_unschedulable_pods", "plugin")],
            "Pods without a node, by each plugin that rejected some node for them: NodeResourcesFit is room, "
            "the others are rules.",
        ),
        Panel(
            "What moves pods to a queue",
            [counted("scheduler_queue_incoming_pods_total", "queue, event")],
            "By the event that moved them.",
            unit="ops",
        ),
    ],
)

MEMORY = Row(
    "Memory",
    [
        Panel(
            "Memory of all nodes",
            [
                Query(ALLOCATABLE, "allocatable"),
                Query(REQUESTED, "requested"),
                Query(FREE, "free"),
            ],
            "By requests, which is what decides, not by use.",
            unit="bytes",
        ),
        Panel(
            "Free memory that pods could use",
            [
                Query(FREE, "all that is free"),
                standing("wholepod_node_memory_usable_bytes", "pod_size", "by pods of {{pod_size}}"),
            ],
            "What is free on each node, rounded down to whole pods of a size, by memory alone.",
            unit="bytes",
        ),
        Panel(
            "Fragmentation",
            [
                Query(
                    f"1 - max by (pod_size) ({select('wholepod_node_memory_usable_bytes')}) "
                    f"/ on () group_left () ({FREE} > 0)",
                    "for pods of {{pod_size}}",
                )
            ],
            "The share of free memory that lies in pieces too small for pods of a size.",
            unit="percentunit",
        ),
        Panel(
            "Largest piece",
            [standing("wholepod_node_memory_largest_free_bytes", legend="free on one node")],
            "A pod that asks for more finds no node.",
            unit="bytes",
        ),
        Panel(
            "Memory of pods by phase",
            [standing("wholepod_pod_memory_bytes", "phase")],
            "What pods hold on nodes. Pending: bound, and not running yet.",
            unit="bytes",
            kind=Kind.STACK,
        ),
        Panel(
            "Pods by phase",
            [standing("wholepod_pods", "phase")],
            "Pods that have not finished; waiting ones of our profiles are Pending, too.",
            kind=Kind.STACK,
        ),
    ],
)

PROCESS = Row(
    "Process",
    [
        Panel(
            "CPU",
            [Query(f"rate(process_cpu_seconds_total{{{JOB}}}{RATE})", "{{instance}}")],
            "Cores, by replica. At 1 a replica can't go faster.",
        ),
        Panel(
            "Memory",
            [Query(f"process_resident_memory_bytes{{{JOB}}}", "{{instance}}")],
            "Resident, by replica.",
            unit="bytes",
        ),
        Panel(
            "Cache",
            [
                standing("scheduler_cache_size", "type"),
                standing("wholepod_pods_waiting_for_volumes", legend="waiting for volumes"),
                Query(f"sum(wholepod_unreadable_objects_total{{{JOB}}})", "unreadable objects"),
            ],
            "Nodes, pods that have one, and of these those that the watch does not show yet (assumed).",
        ),
    ],
)

SCHEDULING = Board(
    "wholepod-scheduling",
    "Wholepod / Scheduling",
    "Pods: how many, how fast, which wait and why, and how full memory is.",
    [OVERVIEW, THROUGHPUT, LATENCY, QUEUES, MEMORY, PROCESS],
)
