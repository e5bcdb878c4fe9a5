"""The dashboard of gangs: how they stand, how long they take, and what each strategy costs."""

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
    of_leader,
    percentiles,
    standing,
    waiting,
)

TIME_TO_GANG = "wholepod_gang_time_to_bound_seconds"
NOT_BOUND = f'wholepod_gangs{{{JOB}, state!="bound"}}'

OVERVIEW = Row(
    "Overview",
    [
        Panel(
            "Gangs not bound",
            [Query(f"sum({of_leader(NOT_BOUND)})", "gangs")],
            "Gangs that have members of which too few have nodes.",
            kind=Kind.NUMBER,
            width=4,
        ),
        Panel(
            "Time to gang, 90 %",
            percentiles(TIME_TO_GANG, quantiles=[0.9], since="min_count"),
            "From the moment enough members existed until enough were bound.",
            unit="s",
            kind=Kind.NUMBER,
            width=4,
        ),
        Panel(
            "Memory held now",
            [Query(f"sum(max by (strategy) (wholepod_gang_held_memory_bytes{{{JOB}}}))", "held")],
            "For gangs whose other members are missing or have no place yet.",
            unit="bytes",
            kind=Kind.NUMBER,
            width=4,
        ),
        Panel(
            "Memory wasted",
            [counted("wholepod_gang_held_memory_byte_seconds_total", "", outcome="wasted")],
            "Held, on average, for gangs that came to nothing. Counted when a hold ends.",
            unit="bytes",
            kind=Kind.NUMBER,
            width=4,
        ),
        Panel(
            "Gangs in the journal",
            [standing("wholepod_journal_entries", legend="gangs")],
            "Being bound right now.",
            kind=Kind.NUMBER,
            width=4,
        ),
        Panel(
            "Journal in trouble",
            [standing("wholepod_journal_trouble", legend="trouble")],
            "1 while the journal can't be written: no gang is bound then, single pods are.",
            kind=Kind.NUMBER,
            width=4,
            warn_above=1,
        ),
    ],
)

GANGS = Row(
    "Gangs",
    [
        Panel(
            "Gangs by state",
            [waiting("wholepod_gangs", "state")],
            "As `wholepod gangs` shows them. incomplete: members are missing. waiting: no room for all.",
            kind=Kind.STACK,
        ),
        Panel(
            "Gangs not bound, by strategy",
            [
                Query(f"sum by (strategy) ({of_leader(NOT_BOUND)})", "{{strategy}}"),
            ],
            "unknown: what describes the gang is missing or wrong; its pods' conditions say what.",
            kind=Kind.STACK,
        ),
        Panel(
            "Members that wait for others",
            [
                waiting("scheduler_pending_pods", legend="no place yet", queue="incomplete"),
                waiting("scheduler_pending_pods", legend="place held or claimed", queue="tentative"),
            ],
            "Pods of gangs that are not complete.",
            kind=Kind.STACK,
        ),
        Panel(
            "Time to gang, since enough members existed",
            percentiles(TIME_TO_GANG, "strategy", [0.5, 0.9], since="min_count"),
            "What the scheduler can do something about.",
            unit="s",
        ),
        Panel(
            "Time to gang, since the first member",
            percentiles(TIME_TO_GANG, "strategy", [0.5, 0.9], since="first_member"),
            "What users see. Far above the one beside it: members are created late.",
            unit="s",
        ),
        Panel(
            "Plans",
            [
                Query(
                    f"sum by (strategy) (rate(wholepod_gang_plans_total{{{JOB}}}{RATE}))",
                    "{{strategy}}: made",
                ),
                Query(
                    f"sum by (strategy) (rate(wholepod_gang_infeasible_plans_total{{{JOB}}}{RATE}))",
                    "{{strategy}}: no room",
                ),
                Query(
                    f"sum by (strategy) (rate(wholepod_gang_searches_given_up_total{{{JOB}}}{RATE}))",
                    "{{strategy}}: given up",
                ),
            ],
            "made: all members have places. no room: none found. given up: of these, searches whose budget "
            "was spent, so there may have been a plan.",
            unit="ops",
        ),
    ],
)

COSTS = Row(
    "Memory that gangs keep from others",
    [
        Panel(
            "Held now",
            [standing("wholepod_gang_held_memory_bytes", "strategy")],
            "By hoarding gangs, and by optimistic ones that keep what they got.",
            unit="bytes",
            kind=Kind.STACK,
        ),
        Panel(
            "Held: used and wasted",
            [counted("wholepod_gang_held_memory_byte_seconds_total", "strategy, outcome")],
            "Average memory held, by whether a commit followed. Counted when a hold ends, so long holds are "
            "peaks.",
            unit="bytes",
        ),
        Panel(
            "Reserved for gangs that have waited long",
            [counted("wholepod_gang_reserved_memory_byte_seconds_total", "strategy")],
            "Free memory of nodes that nobody else may use meanwhile, on average.",
            unit="bytes",
        ),
        Panel(
            "Bound, but incomplete",
            [counted("wholepod_gang_incomplete_memory_byte_seconds_total", "strategy")],
            "Memory of members that are bound while too few of their gang are: it works for nobody.",
            unit="bytes",
        ),
        Panel(
            "Free, though gangs want it",
            [counted("wholepod_gang_free_while_wanted_memory_byte_seconds_total", "strategy")],
            "Memory that members of refused gangs could have used one by one, on average.",
            unit="bytes",
        ),
        Panel(
            "Planning",
            [counted("wholepod_gang_planning_cpu_seconds_total", "strategy")],
            "Cores spent on plans for gangs.",
        ),
    ],
)

TROUBLE = Row(
    "Conflicts, and what is taken back",
    [
        Panel(
            "Conflicts",
            [counted("wholepod_gang_conflicts_total", "strategy")],
            "Optimistic gangs some of whose room others had taken.",
            unit="ops",
        ),
        Panel(
            "Rollbacks",
            [counted("wholepod_gang_rollbacks_total", "strategy")],
            "Plans given up after members had places in them. Costs time, no pods.",
            unit="ops",
        ),
        Panel(
            "Deadlocks resolved",
            [Query(f"sum(rate(wholepod_gang_deadlocks_total{{{JOB}}}{RATE}))", "junior gangs that gave way")],
            "Times a gang gave up what it held for a senior one that it blocked.",
            unit="ops",
        ),
        Panel(
            "Compensations",
            [counted("wholepod_gang_compensations_total", "strategy")],
            "Gangs whose binding was given up after members were bound: pods were deleted.",
            unit="ops",
        ),
        Panel(
            "Commits by how they ended",
            [
                counted("wholepod_gang_commits_ended_total", "outcome"),
                Query(f"sum(rate(wholepod_gang_restarts_total{{{JOB}}}{RATE}))", "started anew"),
            ],
            "given_up: see compensations. started anew: members were lost, and the gang asked for it.",
            unit="ops",
        ),
        Panel(
            "Victims for one gang",
            percentiles("scheduler_workload_preemption_victims"),
            "Pods that were preempted so that a gang fits.",
        ),
        Panel(
            "Journal",
            [
                standing("wholepod_journal_entries", legend="gangs being bound"),
                standing("wholepod_journal_trouble", legend="can't be written"),
            ],
            "Entries that stay for minutes are commits that can't be ended: see the log.",
            width=24,
        ),
    ],
)


def _of_controller(metric: str) -> str:
    """It has a Service of its own, and so a job of its own."""
    return f'wholepod_controller_{metric}{{job="$job-controller"}}'


CONTROLLER = Row(
    "Controller",
    [
        Panel(
            "PodGroups by phase",
            [Query(f"max by (phase) ({_of_controller('pod_groups')})", "{{phase}}")],
            "Of scheduling.x-k8s.io, as the controller has written it. Empty where it does not run.",
            kind=Kind.STACK,
        ),
        Panel(
            "Controller: writes and failures",
            [
                Query(
                    f"sum by (outcome) (rate({_of_controller('status_writes_total')}{RATE}))",
                    "status {{outcome}}",
                ),
                Query(
                    f"sum by (what) (rate({_of_controller('reconcile_failures_total')}{RATE}))",
                    "failed: {{what}}",
                ),
            ],
            "A conflict is tried again at once. Failures that go on are in the log.",
            unit="ops",
        ),
        Panel(
            "Controller: what waits",
            [Query(f"max by (what) ({_of_controller('queue_length')})", "{{what}}")],
            "What is to be looked at, now or later.",
        ),
    ],
)

CO_SCHEDULING = Board(
    "wholepod-co-scheduling",
    "Wholepod / Co-scheduling",
    "Gangs: how they stand, how long they take, and what each strategy costs.",
    [OVERVIEW, GANGS, COSTS, TROUBLE, CONTROLLER],
)
