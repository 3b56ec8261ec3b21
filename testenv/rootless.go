package testenv

import (
	"io"
	"slices"
	"strconv"
	"testing"
)

// Unshare is the command that puts what follows it into user and network
// namespaces of its own, as their root.
var Unshare = []string{"unshare", "--user", "--map-root-user", "--net"}

// NewRootless starts a process as a rootless engine does: by a user, in user and
// network namespaces that the user made. What is inside runs before the process,
// in those namespaces: Unshare, for some that are nested in them.
func NewRootless(tb testing.TB, uid int, inside ...string) *Container {
	tb.Helper()
	id := strconv.Itoa(uid)
	args := slices.Concat([]string{"setpriv", "--reuid", id, "--regid", id, "--clear-groups"}, Unshare, inside, []string{"cat"})
	c := newProcess(tb, args...)
	out, err := c.cmd.StdoutPipe()
	must(tb, err)
	if err := c.cmd.Start(); err != nil {
		tb.Fatalf("start a container's process as uid %d (root is needed): %v", uid, err)
	}
	// An echo comes once all that stands before cat is done.
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
