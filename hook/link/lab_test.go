package link

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// mustHost returns a Host in a new namespace, which represents the host's.
func mustHost(tb testing.TB) *Host {
	tb.Helper()
	target, err := ns.TempNetNS()
	if err != nil {
		tb.Fatalf("create a namespace (these tests need root): %v", err)
	}
	tb.Cleanup(func() { target.Close() })
	var h *Host
	locks := filepath.Join(tb.TempDir(), "locks")
	if err := target.Do(func(ns.NetNS) (err error) {
		h, err = OpenHost(locks)
		return err
	}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(h.Close)
	return h
}

// mustVeth adds a veth pair to the host, both ends up, and returns name.
func mustVeth(tb testing.TB, h *Host, name string) string {
	tb.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	must(tb, h.handle.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name + "p"}))
	mustUp(tb, h, name)
	mustUp(tb, h, name+"p")
	return name
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func mustLink(tb testing.TB, h *Host, name string) netlink.Link {
	tb.Helper()
	l, err := linkByName(h.handle, name)
	if err != nil || l == nil {
		tb.Fatalf("link %q: %v, %v", name, l, err)
	}
	return l
}

func mustUp(tb testing.TB, h *Host, name string) {
	tb.Helper()
	must(tb, h.handle.LinkSetUp(mustLink(tb, h, name)))
}

// mustAdd adds a link to the host and returns it as the kernel reports it.
func mustAdd(tb testing.TB, h *Host, l netlink.Link) netlink.Link {
	tb.Helper()
	must(tb, h.handle.LinkAdd(l))
	return mustLink(tb, h, l.Attrs().Name)
}

func linkNamed(name string, parent int) netlink.LinkAttrs {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = name, parent
	return attrs
}

func mustResolve(tb testing.TB, h *Host, name string) Parent {
	tb.Helper()
	p, err := h.Resolve(ParentSpec{Name: name})
	must(tb, err)
	return p
}

// mustContainer starts a process in a new network namespace.
func mustContainer(tb testing.TB) *exec.Cmd {
	tb.Helper()
	cmd := exec.Command("sleep", "300")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	// Pdeathsig applies to the end of the thread that forks.
	runtime.LockOSThread()
	tb.Cleanup(runtime.UnlockOSThread)
	must(tb, cmd.Start())
	tb.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}

func mustOpen(tb testing.TB, h *Host, pid int) *Netns {
	tb.Helper()
	n, err := h.OpenNetns(pid)
	must(tb, err)
	tb.Cleanup(n.Close)
	return n
}

// mustNetns returns the namespace of a container that runs until the end of the test.
func mustNetns(tb testing.TB, h *Host) *Netns {
	tb.Helper()
	return mustOpen(tb, h, mustContainer(tb).Process.Pid)
}

func mustMAC(tb testing.TB, s string) (mac ether.MAC) {
	tb.Helper()
	must(tb, mac.UnmarshalText([]byte(s)))
	return mac
}

func withTimeout(tb testing.TB, d time.Duration) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	tb.Cleanup(cancel)
	return ctx
}

// waitFor polls done until it returns true, for at most 10 seconds.
func waitFor(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	end := time.After(10 * time.Second)
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !done() {
		select {
		case <-look.C:
		case <-end:
			tb.Fatalf("not within 10 s: %s", what)
		}
	}
}

func readSysctl(tb testing.TB, n *Netns, key string) string {
	tb.Helper()
	var text []byte
	must(tb, n.Do(func() (err error) {
		text, err = os.ReadFile("/proc/sys/net/" + key)
		return err
	}))
	return string(text[:len(text)-1])
}

var subnet = netip.MustParsePrefix("192.168.50.9/24")
