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
	// A pin whose name mountinfo writes in octal.
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
	wantFound(t, h, n, i, true) // by its pin
	must(t, unix.Unmount(pin, unix.MNT_DETACH))
	wantFound(t, h, n, i, false) // n holds it, but nobody who is looked for
}

func wantFound(tb testing.TB, h *Host, n *Netns, i Interface, want bool) {
	tb.Helper()
	bySelf, err := h.FindNetns(n.Inode, n.Cookie)
	must(tb, err)
	var byInterface *Netns
	must(tb, h.EachNetns(func(n *Netns) {
		found, err := n.FindMacvlan(i.ParentIndex, i.MAC)
		must(tb, err)
		if found != nil && byInterface == nil {
			byInterface, err = h.FindNetns(n.Inode, n.Cookie)
			must(tb, err)
		}
	}))
	for how, found := range map[string]*Netns{"inode": bySelf, "interface": byInterface} {
		if (found != nil) != want {
			tb.Errorf("by %s: %+v, wanted %v", how, found, want)
		}
		if found != nil {
			if found.Inode != n.Inode || found.Cookie != n.Cookie {
				tb.Errorf("by %s: %+v, want %+v", how, found, n)
			}
			found.Close()
		}
	}
}

// Who has no descriptor left does not know that a namespace is gone.
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
			t.Errorf("with %d descriptors left the namespace is gone", free)
		}
	}
	if failed == 0 || failed == 16 {
		t.Errorf("it failed %d times: the test tests little", failed)
	}
}

// One pass over processes and pins opens only the namespaces that are wanted.
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
