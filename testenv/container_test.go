package testenv

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestContainer(t *testing.T) {
	c := NewContainer(t)
	out, err := c.Exec("ip", "-br", "link")
	must(t, err)
	if f := strings.Fields(out); len(f) < 3 || f[0] != "lo" || strings.Count(out, "\n") != 1 ||
		!strings.Contains(out, "LOWER_UP") {
		t.Errorf("a container's links are %q, want lo alone, up", out)
	}
	inside, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", c.Pid))
	must(t, err)
	must(t, c.Do(func() error {
		here, err := os.Readlink("/proc/thread-self/ns/net")
		if here != inside {
			return fmt.Errorf("Do is in %s, the process in %s", here, inside)
		}
		return err
	}))
	outside, err := os.Readlink("/proc/self/ns/net")
	must(t, err)
	if inside == outside {
		t.Error("the container is in the test's own namespace")
	}
}

func TestContainerEnds(t *testing.T) {
	c := NewContainer(t)
	stat := fmt.Sprintf("/proc/%d/stat", c.Pid)
	must(t, c.Kill())
	data, err := os.ReadFile(stat)
	must(t, err)
	if !strings.Contains(string(data), ") Z ") {
		t.Errorf("after Kill the process is %q, want a zombie", data)
	}
	c.Reap()
	if _, err := os.ReadFile(stat); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Reap: %v, want the process gone", err)
	}

	d := NewContainer(t)
	d.End(t)
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", d.Pid)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after End: %v, want the process gone", err)
	}
}
