package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// leaving is how long what was told to end may need to be gone.
const leaving = 3 * time.Second

// checkLeaks fails the test if anything but n itself would keep the namespace
// alive: a process, a thread of this one, a descriptor.
func (n *Namespace) checkLeaks(tb testing.TB) {
	tb.Helper()
	id, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", n.file.Fd()))
	if err != nil {
		tb.Errorf("name namespace %q: %v", n.Name, err)
		return
	}
	own := fmt.Sprintf("/proc/self/fd/%d", n.file.Fd())
	eventually(tb.Errorf, leaving, "namespace "+n.Name+" to be left", func() error {
		for _, place := range []struct{ dir, below string }{{"/proc", "ns/net"}, {"/proc/self/task", "ns/net"}, {"/proc/self/fd", ""}} {
			names, err := namesIn(place.dir)
			if err != nil {
				return err
			}
			for _, name := range names {
				p := filepath.Join(place.dir, name, place.below)
				// Unreadable: gone by now, or a zombie, which holds nothing; or it is not a process.
				if target, err := os.Readlink(p); err == nil && target == id && p != own {
					return fmt.Errorf("%s is still there%s", p, commandOf(p))
				}
			}
		}
		return nil
	})
}

// namesIn lists a directory whose entries come and go, and looks at none of them:
// with a pattern, half of the time of many short tests would go into that.
func namesIn(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// commandOf says which program a path below /proc/PID is about.
func commandOf(p string) string {
	pid, _, _ := strings.Cut(strings.TrimPrefix(p, "/proc/"), "/")
	line, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
	if err != nil || pid == "self" {
		return ""
	}
	return fmt.Sprintf(" (%s)", strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " ")))
}
