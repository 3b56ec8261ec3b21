package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// leakTimeout is the time in which processes that were told to end must be gone.
const leakTimeout = 3 * time.Second

// checkLeaks fails the test if anything other than n keeps the namespace alive: a process, a thread
// of this process, a descriptor.
func (n *Namespace) checkLeaks(tb testing.TB) {
	tb.Helper()
	id, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", n.file.Fd()))
	if err != nil {
		tb.Errorf("name namespace %q: %v", n.Name, err)
		return
	}
	own := fmt.Sprintf("/proc/self/fd/%d", n.file.Fd())
	eventually(tb.Errorf, leakTimeout, "namespace "+n.Name+" to be released", func() error {
		for _, place := range []struct{ dir, below string }{{"/proc", "ns/net"}, {"/proc/self/task", "ns/net"},
			{"/proc/self/fd", ""}} {
			names, err := namesIn(place.dir)
			if err != nil {
				return err
			}
			for _, name := range names {
				p := filepath.Join(place.dir, name, place.below)
				// If it cannot be read, it is gone, or a zombie (which holds nothing), or not a
				// process.
				if target, err := os.Readlink(p); err == nil && target == id && p != own {
					return fmt.Errorf("%s still exists%s", p, commandOf(p))
				}
			}
		}
		return nil
	})
}

// namesIn lists a directory of entries that come and go, without a stat of each: filepath.Glob
// would take half the time of many short tests.
func namesIn(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// commandOf returns, in brackets, the command line of the process of a path below /proc/PID, or "".
func commandOf(p string) string {
	pid, _, _ := strings.Cut(strings.TrimPrefix(p, "/proc/"), "/")
	line, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
	if err != nil || pid == "self" {
		return ""
	}
	return fmt.Sprintf(" (%s)", strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " ")))
}
