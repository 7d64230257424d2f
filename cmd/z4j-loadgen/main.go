// Command z4j-loadgen pretends to be agents of a z4j brain, and fills databases.
package main

import (
	"os"
	"time"

	"github.com/z4j-go/z4j/internal/load"
)

func main() {
	info, err := os.Stderr.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	os.Exit(load.Command(load.Process{Args: os.Args[1:], Stdout: os.Stdout, Stderr: os.Stderr, Terminal: terminal, Now: time.Now}))
}
