// Package load pretends: [Run] is many agents that report the lives of tasks to a brain over the real protocol, and
// measures it; [Fill] is the history that such agents would have left in a database. Both tell the same made-up tasks.
package load
