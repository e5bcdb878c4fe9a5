"""What all tests share: how hard the property tests look.

`--hypothesis-profile=faults` (make faults) looks for much longer than the default, which has to fit
into every run of the tests. The clock of a busy machine must fail nothing, so there are no deadlines.
In CI a run of the default is the same each time, so that a change is judged by what it changes; everywhere
else, and in `make faults`, each run tries something new.
"""

import os

from hypothesis import HealthCheck, settings

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile(
    "default",
    deadline=None,
    max_examples=120,
    derandomize="CI" in os.environ,
    suppress_health_check=_SLOW_IS_FINE,
)
settings.register_profile(
    "faults",
    deadline=None,
    max_examples=10_000,
    derandomize=False,
    print_blob=True,
    suppress_health_check=_SLOW_IS_FINE,
)
settings.load_profile("default")
