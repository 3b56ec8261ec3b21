package netns

import (
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// mustHost returns a Host in a new namespace, which represents the host's.
func mustHost(tb testing.TB) (h *Host) {
	tb.Helper()
	must(tb, testenv.NewNamespace(tb, "host").Do(func() (err error) {
		h, err = OpenHost()
		return err
	}))
	tb.Cleanup(h.Close)
	return h
}

func mustOpen(tb testing.TB, h *Host, pid int) *Namespace {
	tb.Helper()
	n, err := h.Open(pid)
	must(tb, err)
	tb.Cleanup(n.Close)
	return n
}

// mustNetns returns the namespace of a container that runs until the end of the test.
func mustNetns(tb testing.TB, h *Host) *Namespace {
	tb.Helper()
	return mustOpen(tb, h, testenv.NewContainer(tb).Pid)
}
