package bpf

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/bpf/pin"
	"github.com/lanyard-net/lanyard/testenv"
)

// bpffs is the usual mount point of the BPF file system.
const bpffs = "/sys/fs/bpf"

// TestMount prepares a trunk without a mounted bpffs, by two processes at once. They run in the mount
// namespace of a shell that is process 1 of its PID namespace, like a container's; the mount ends
// with it.
func TestMount(t *testing.T) {
	b := newIdleBench(t, Options{Root: bpffs + "/lanyard-test"}, testenv.Config{})
	o := order{Options: Options{Root: string(b.root)}, Do: "prepare", Trunk: b.trunk}
	cmd := process(t, o)
	// The script unmounts in a loop, since a bpffs may be mounted more than once.
	script := `set -e
mount -t proc proc /proc
while mountpoint -q /sys/fs/bpf; do umount /sys/fs/bpf; done
"$0" & first=$!
"$0"
wait $first
test "$(grep -c ' /sys/fs/bpf ' /proc/self/mountinfo)" = 1
stat -fc %T /sys/fs/bpf
stat -c %a /sys/fs/bpf /sys/fs/bpf/lanyard-test
ls /sys/fs/bpf/lanyard-test
`
	self := cmd.Path
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", script, self}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Cloneflags: unix.CLONE_NEWPID}
	cmd.Stdout = cmd.Stderr
	err := finish(b.Host, cmd)
	want := fmt.Sprintf("bpf_fs\n1700\n700\ntrunk-%d-v%d\n", b.trunk, layout)
	if got := fmt.Sprint(cmd.Stderr); err != nil || got != want {
		t.Errorf("%v: got %q, want %q", err, got, want)
	}
	if pin.Exists(string(b.root)) {
		t.Errorf("%q is in the host's mount namespace", b.root)
	}
	b.do(t, func() error { return b.Release(b.trunk) }) // of the filters and clsact that the shell's processes left
}

// TestMountEndsWithCommand checks the error in a mount namespace that ends with the command, as
// "ip netns exec" makes them.
func TestMountEndsWithCommand(t *testing.T) {
	if _, err := os.Stat("/proc/1/ns/mnt"); err != nil {
		t.Skip("process 1 is hidden here: in the VM it is not")
	}
	b := newIdleBench(t, Options{Root: bpffs + "/lanyard-test"}, testenv.Config{})
	cmd := process(t, order{Options: Options{Root: string(b.root)}, Do: "prepare", Trunk: b.trunk})
	script := `while mountpoint -q /sys/fs/bpf; do umount /sys/fs/bpf; done; exec "$0"`
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", script, cmd.Path}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if err := finish(b.Host, cmd); err == nil || !strings.Contains(fmt.Sprint(cmd.Stderr), "nsenter --net=") {
		t.Errorf("%v: %s", err, cmd.Stderr)
	}
}

// TestNoBPFFS checks the error for a root that is not on a bpffs.
func TestNoBPFFS(t *testing.T) {
	dir := t.TempDir()
	d := New(Options{Root: filepath.Join(dir, "lanyard")})
	want := fmt.Sprintf("%q is not on a bpffs: choose a directory in %q", dir, bpffs)
	if err := d.Prepare(1); err == nil || err.Error() != want {
		t.Errorf("Prepare: %v, want %q", err, want)
	}
}

// TestNoCapability runs a hook as a user without capabilities.
func TestNoCapability(t *testing.T) {
	b := newIdleBench(t, Options{}, testenv.Config{})
	dir := filepath.Dir(string(b.root))
	// The user gets a bpffs of its own, so that only the capabilities are missing, and a copy of
	// this binary.
	must(t, os.Chown(dir, 65534, 65534))
	for path := dir; path != "/"; path = filepath.Dir(path) {
		if path != dir && strings.HasPrefix(path, os.TempDir()+"/") {
			must(t, os.Chmod(path, 0o755))
		}
	}
	for _, do := range []string{"prepare", "emitter"} {
		cmd := process(t, order{Options: Options{Root: string(b.root)}, Do: do, Trunk: b.trunk})
		copied := filepath.Join(t.TempDir(), "hook")
		must(t, os.Chmod(filepath.Dir(copied), 0o755))
		must(t, os.Chmod(filepath.Dir(filepath.Dir(copied)), 0o755))
		binary, err := os.ReadFile(cmd.Path)
		must(t, err)
		must(t, os.WriteFile(copied, binary, 0o755))
		cmd.Path = copied
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		err = finish(b.Host, cmd)
		const want = "load tc program: operation not permitted: CAP_BPF and CAP_NET_ADMIN are needed, CAP_SYS_ADMIN below " +
			"Linux 5.8"
		if err == nil || !strings.HasSuffix(err.Error(), ": "+want) {
			t.Errorf("%s: %v, want %q", do, err, want)
		}
	}
}
