"""The controller: `wholepod controller`. It decides nothing about placement and the scheduler needs it not.

It keeps the status of `scheduling.x-k8s.io` PodGroups, creates such groups for workloads that ask for one,
and answers the API server's questions about objects that could never work. All of it is level-triggered: what
is written follows from what is there, so that a restart, a second controller or a missed event costs
nothing but time.

kopf follows the few kinds that users create (groups, Jobs, StatefulSets, JobSets), some of which may not
be served, or not yet. Pods, which are many, come through the scheduler's own reflector: kopf keeps a task
for each object and decodes all of it.
"""
