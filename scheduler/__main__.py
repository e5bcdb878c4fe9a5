"""`python -m scheduler` is `wholepod`."""

from scheduler.cli import main

main(prog_name="wholepod")
