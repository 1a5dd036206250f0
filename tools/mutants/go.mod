module github.com/valetkey/valetkey/tools/mutants

go 1.26.0
