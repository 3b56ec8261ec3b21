package link

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFindNetns(t *testing.T) {
	h := mustHost(t)
	p := mustResolve(t, h, mustVeth(t, h, "trunk"))
	cmd := mustContainer(t)
	n := mustOpen(t, h, cmd.Process.Pid)
	i := mustCreate(t, h, n, specOn(t, p))
	// A mount point with a name that mountinfo escapes in octal.
	pin := filepath.Join(t.TempDir(), "a pin")
	must(t, os.WriteFile(pin, nil, 0o600))
	must(t, unix.Mount(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid), pin, "", unix.MS_BIND, ""))
	t.Cleanup(func() { unix.Unmount(pin, unix.MNT_DETACH) })

	wantFound(t, h, n, i, true)
	if other, err := h.FindNetns(n.Inode, n.Cookie+1); other != nil || err != nil {
		t.Errorf("another cookie: %v, %v", other, err)
	}
	if other, err := h.FindNetns(1, n.Cookie); other != nil || err != nil {
		t.Errorf("another inode: %v, %v", other, err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	wantFound(t, h, n, i, true) // by its mount
	must(t, unix.Unmount(pin, unix.MNT_DETACH))
	wantFound(t, h, n, i, false) // only n holds it, which FindNetns does not see
}

func wantFound(tb testing.TB, h *Host, n *Netns, i Interface, want bool) {
	tb.Helper()
	bySelf, err := h.FindNetns(n.Inode, n.Cookie)
	must(tb, err)
	var byInterface *Netns
	must(tb, h.EachNetns(func(n *Netns) {
		found, err := n.FindMacvlan(i.ParentIndex, 0, i.MAC)
		must(tb, err)
		if found != nil && byInterface == nil {
			byInterface, err = h.FindNetns(n.Inode, n.Cookie)
			must(tb, err)
		}
	}))
	for how, found := range map[string]*Netns{"inode": bySelf, "interface": byInterface} {
		if (found != nil) != want {
			tb.Errorf("by %s: found %+v, want found %v", how, found, want)
		}
		if found != nil {
			if found.Inode != n.Inode || found.Cookie != n.Cookie {
				tb.Errorf("by %s: %+v, want %+v", how, found, n)
			}
			found.Close()
		}
	}
}

// A process without free descriptors gets an error, and not "no such namespace".
func TestFindNetnsWithoutFiles(t *testing.T) {
	h := mustHost(t)
	n := mustOpen(t, h, mustContainer(t).Process.Pid)
	var was unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	failed := 0
	for free := range 16 {
		spare, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Close(spare)) // the lowest that is free
		must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(spare + free), Max: was.Max}))
		found, err := h.FindNetns(n.Inode, n.Cookie)
		must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was))
		if found != nil {
			found.Close()
		} else if failed++; err == nil {
			t.Errorf("with %d free descriptors: no namespace and no error", free)
		}
	}
	if failed == 0 || failed == 16 {
		t.Errorf("FindNetns failed %d of 16 times, want some", failed)
	}
}

// TestEachNetnsOf checks that only the wanted namespaces are visited.
func TestEachNetnsOf(t *testing.T) {
	h := mustHost(t)
	one, two := mustNetns(t, h), mustNetns(t, h)
	var seen []uint64
	must(t, h.EachNetnsOf(
		func(inode uint64) bool { return inode == one.Inode },
		func(n *Netns) { seen = append(seen, n.Inode) },
	))
	if len(seen) != 1 || seen[0] != one.Inode {
		t.Errorf("visited %v, want %d and not %d", seen, one.Inode, two.Inode)
	}
}
