package link

import (
	"os"
	"testing"
)

// An attach leaves no descriptors and no threads: one service runs many attaches.
func TestNothingLeaks(t *testing.T) {
	h := mustHost(t)
	p := mustResolve(t, h, mustVeth(t, h, "trunk"))
	pid := mustContainer(t).Process.Pid
	attach := func() {
		n, err := h.OpenNetns(pid)
		must(t, err)
		defer n.Close()
		i := mustCreate(t, h, n, specOn(t, p))
		must(t, n.AddAddr(i.Index, Addr{Prefix: subnet}))
		must(t, n.DeleteInterface(i))
		if _, err := h.OpenNetns(1); err == nil {
			t.Error("opened the host's namespace")
		}
	}
	count := func() [2]int { return [2]int{entries(t, "/proc/self/fd"), entries(t, "/proc/self/task")} }
	for range 5 {
		attach()
	}
	before := count()
	for range 20 {
		attach()
	}
	// The runtime may have started a thread of its own.
	if after := count(); after[0] > before[0] || after[1] > before[1]+2 {
		t.Errorf("descriptors and threads: %v, then %v", before, after)
	}
}

func entries(tb testing.TB, dir string) int {
	tb.Helper()
	list, err := os.ReadDir(dir)
	must(tb, err)
	return len(list)
}
