module wholepod/programs/workload

go 1.26.0
