package conformance_test

import "syscall"

// ownGroup puts a process into a group of its own that ends with us, however we end.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
