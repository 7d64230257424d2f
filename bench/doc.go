// Package bench measures whole programs against what the database's own tools do with the same data. Its benchmarks are in test
// files: `make bench PKG=./bench`. Z4J_BENCH_TASKS is how many tasks the database holds (three events each; default 20,000).
package bench
