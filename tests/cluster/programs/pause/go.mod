module wholepod/programs/pause

go 1.26.0
