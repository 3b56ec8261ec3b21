package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/testenv"
)

func TestFindNetns(t *testing.T) {
	h := mustHost(t)
	c := testenv.NewContainer(t)
	n := mustOpen(t, h, c.Pid)
	// A mount point with a name that mountinfo escapes in octal.
	pin := filepath.Join(t.TempDir(), "a pin")
	must(t, os.WriteFile(pin, nil, 0o600))
	must(t, unix.Mount(fmt.Sprintf("/proc/%d/ns/net", c.Pid), pin, "", unix.MS_BIND, ""))
	t.Cleanup(func() { unix.Unmount(pin, unix.MNT_DETACH) })

	wantFound(t, h, n, true)
	if other, err := h.Find(n.Inode, n.Cookie+1); other != nil || err != nil {
		t.Errorf("another cookie: %v, %v", other, err)
	}
	if other, err := h.Find(1, n.Cookie); other != nil || err != nil {
		t.Errorf("another inode: %v, %v", other, err)
	}
	must(t, c.Kill())
	c.Reap()
	wantFound(t, h, n, true) // by its mount
	must(t, unix.Unmount(pin, unix.MNT_DETACH))
	wantFound(t, h, n, false) // only descriptors hold it, which Find does not see
}

func wantFound(tb testing.TB, h *Host, n *Namespace, want bool) {
	tb.Helper()
	found, err := h.Find(n.Inode, n.Cookie)
	must(tb, err)
	if (found != nil) != want {
		tb.Errorf("found %+v, want found %v", found, want)
	}
	if found != nil {
		if found.Inode != n.Inode || found.Cookie != n.Cookie {
			tb.Errorf("found %+v, want %+v", found, n)
		}
		found.Close()
	}
	visits := 0
	must(tb, h.Each(func(uint64) bool { return true }, func(o *Namespace) error {
		if o.Inode == n.Inode && o.Cookie == n.Cookie {
			visits++
		}
		return nil
	}))
	if (visits == 1) != want || visits > 1 {
		tb.Errorf("%d visits, want one: %v", visits, want)
	}
}

// A process without free descriptors gets an error, and not "no such namespace".
func TestFindNetnsWithoutFiles(t *testing.T) {
	h := mustHost(t)
	n := mustOpen(t, h, testenv.NewContainer(t).Pid)
	var was unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	failed := 0
	for free := range 16 {
		spare, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Close(spare)) // the lowest that is free
		must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(spare + free), Max: was.Max}))
		found, err := h.Find(n.Inode, n.Cookie)
		must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was))
		if found != nil {
			found.Close()
		} else if failed++; err == nil {
			t.Errorf("with %d free descriptors: no namespace and no error", free)
		}
	}
	if failed == 0 || failed == 16 {
		t.Errorf("Find failed %d of 16 times, want some", failed)
	}
}

// Only the wanted namespaces are visited.
func TestEachNetnsOf(t *testing.T) {
	h := mustHost(t)
	one, two := mustNetns(t, h), mustNetns(t, h)
	var seen []uint64
	must(t, h.Each(
		func(inode uint64) bool { return inode == one.Inode },
		func(n *Namespace) error { seen = append(seen, n.Inode); return nil },
	))
	if len(seen) != 1 || seen[0] != one.Inode {
		t.Errorf("visited %v, want %d and not %d", seen, one.Inode, two.Inode)
	}
}
