"""The commit of a gang at the edge: many binds that count as one, whatever dies in between.

`transaction` is what happens to one gang, step by step, and `recovery` what a new leader finds and does
first; both are pure. `committer` carries their actions out. Why this is safe is told in
`scheduler.kube.journal`.
"""
