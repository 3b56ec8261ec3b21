package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/testenv"
)

// mustRoot returns a root on a new bpffs. It fails the test if pins are left at its end.
func mustRoot(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	root := filepath.Join(dir, "lanyard")
	must(tb, unix.Mount("bpf", dir, "bpf", 0, "mode=0700"))
	mountsMade = append(mountsMade, dir)
	tb.Cleanup(func() {
		if _, err := os.Lstat(root); !errors.Is(err, fs.ErrNotExist) {
			tb.Errorf("the root still exists, with %v (%v)", mustTree(tb, root), err)
		}
		must(tb, unix.Unmount(dir, 0))
	})
	return root
}

// mustTree returns the paths of everything below a directory.
func mustTree(tb testing.TB, dir string) (paths []string) {
	tb.Helper()
	must(tb, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	}))
	return paths
}

// A bench is a lab with a trunk that can be watched.
type bench struct {
	*testenv.Lab
	*Datapath
	trunk     int
	container *testenv.Container // made by the first test that needs one
}

// do runs f in the host's namespace.
func (b *bench) do(tb testing.TB, f func() error) {
	tb.Helper()
	must(tb, b.Host.Do(f))
}

func mustIndex(tb testing.TB, n *testenv.Namespace, name string) int {
	tb.Helper()
	l, err := n.Netlink().LinkByName(name)
	must(tb, err)
	return l.Attrs().Index
}

// newIdleBench makes a lab with a trunk that is not watched yet.
func newIdleBench(tb testing.TB, o Options, c testenv.Config) *bench {
	tb.Helper()
	if o.Root == "" {
		o.Root = mustRoot(tb)
	}
	b := &bench{Lab: testenv.NewLab(tb, c), Datapath: New(o)}
	b.trunk = mustIndex(tb, b.Host, b.Trunk)
	tb.Cleanup(func() { must(tb, b.Close()) })
	return b
}

// newBench makes a lab and watches its trunk. The trunk is released when the test ends.
func newBench(tb testing.TB, o Options, c testenv.Config) *bench {
	tb.Helper()
	b := newIdleBench(tb, o, c)
	b.do(tb, func() error { return b.Prepare(b.trunk) })
	tb.Cleanup(func() {
		b.do(tb, func() error {
			all, err := b.Endpoints()
			for _, e := range all {
				err = errors.Join(err, b.Forget(e))
			}
			return errors.Join(err, b.Release(b.trunk))
		})
	})
	return b
}

// join makes a container with a macvlan eth0 on a parent, with the given MAC and address. IPv6 is
// disabled, so that the container sends nothing that the test does not ask for.
func (b *bench) join(tb testing.TB, parent string, mac ether.MAC, prefix string) *testenv.Container {
	tb.Helper()
	c := testenv.NewContainer(tb)
	must(tb, c.Sysctl("net/ipv6/conf/default/disable_ipv6", "1"))
	_, err := b.Host.Exec("ip", "link", "add", "link", parent, "name", "tmp0", "netns", strconv.Itoa(c.Pid),
		"address", mac.String(), "type", "macvlan", "mode", "bridge")
	must(tb, err)
	for _, args := range [][]string{
		{"link", "set", "tmp0", "name", "eth0", "up"}, {"addr", "add", prefix, "dev", "eth0"},
	} {
		_, err := c.Exec("ip", args...)
		must(tb, err)
	}
	return c
}

func ping(n *testenv.Namespace, addr netip.Addr, count int) error {
	_, err := n.Exec("ping", "-n", "-q", "-i", "0.01", "-W", "2", "-c", fmt.Sprint(count), addr.String())
	return err
}

// onBoth runs a test with each of the two ways to attach programs.
func onBoth(t *testing.T, f func(t *testing.T, o Options)) {
	for _, legacy := range []bool{false, true} {
		name := "tcx"
		if legacy {
			name = "clsact"
		}
		t.Run(name, func(t *testing.T) { f(t, Options{Legacy: legacy}) })
	}
}
