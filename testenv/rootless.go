package testenv

import (
	"io"
	"slices"
	"strconv"
	"testing"
)

// Unshare is a command prefix that runs a command in new user and network namespaces, as root of
// them.
var Unshare = []string{"unshare", "--user", "--map-root-user", "--net"}

// NewRootless starts a process as a rootless engine does: as a user, in user and network namespaces
// that the user created. The command prefix inside, such as Unshare, is run in these namespaces,
// for processes in nested ones.
func NewRootless(tb testing.TB, uid int, inside ...string) *Container {
	tb.Helper()
	id := strconv.Itoa(uid)
	args := slices.Concat([]string{"setpriv", "--reuid", id, "--regid", id, "--clear-groups"}, Unshare, inside,
		[]string{"cat"})
	c := newProcess(tb, args...)
	out, err := c.cmd.StdoutPipe()
	must(tb, err)
	if err := c.cmd.Start(); err != nil {
		tb.Fatalf("start a container's process as uid %d (needs root): %v", uid, err)
	}
	// The echo comes once every command before cat has been executed.
	_, err = io.WriteString(c.stdin, "\n")
	if err == nil {
		_, err = io.ReadFull(out, make([]byte, 1))
	}
	if err != nil {
		c.stop()
		tb.Fatalf("start a container's process as uid %d: %v", uid, err)
	}
	c.hold(tb)
	tb.Cleanup(c.stop)
	return c
}
