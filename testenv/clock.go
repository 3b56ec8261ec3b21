package testenv

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// ShiftClock makes a command run in a time namespace with a clock boottime that is later by whole
// seconds, and the same wall clock: to the command, the wall clock was set back. It must not look at
// start times of processes, which are shifted, too.
func ShiftClock(tb testing.TB, c *exec.Cmd, by time.Duration) {
	tb.Helper()
	path, err := filepath.EvalSymlinks(c.Path) // /proc/self/exe is another program for unshare
	must(tb, err)
	unshare := exec.Command("unshare", "--time", "--boottime", fmt.Sprint(int(by.Seconds())), "--fork", "--kill-child",
		path)
	c.Path, c.Args, c.Err = unshare.Path, append(unshare.Args, c.Args[1:]...), unshare.Err
}
