"""`wholepod extender`: memory fit for clusters that keep kube-scheduler, which asks it over HTTP.

`wire` is the format, `verbs` what is answered, on the state that `following` keeps; `binds` sends binds,
`server` is the HTTP, `app` puts it together. What the protocol allows and what it does not: docs/extender.md.
"""
