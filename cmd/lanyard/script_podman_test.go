//go:build !vm

package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/testenv"
)

// TestScriptsPodman runs the installed programs with the podman of this machine. Commands
// of these scripts, beside those of all:
//
//	host                          makes private copies of the host's directories, with Lanyard
//	                              installed, and the host of the lab as network
//	inside PROGRAM ARG…           (with exec) runs a program there, as root
//	user PROGRAM ARG…             (with exec) runs a program there, as an ordinary user
func TestScriptsPodman(t *testing.T) {
	programs := t.TempDir()
	for name, dir := range map[string]string{"bin/lanyard": ".", "libexec/lanyard/lanyard-hook": "../lanyard-hook",
		"libexec/lanyard/lanyard-attach": "../lanyard-attach"} {
		build := exec.Command("go", "build", "-tags", "urfave_cli_no_docs", "-o", filepath.Join(programs, name), dir)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", build.Args, err, out)
		}
	}
	runScripts(t, "testdata/script-podman", testenv.Config{}, map[string]scriptCmd{
		"host": func(ts *testscript.TestScript, _ bool, args []string) { cmdHost(ts, programs) },
	})
}

// hostScript makes mounts that this machine does not see, and holds them: it is process 1 of
// its own namespace, and everything there ends with it. Limits are lowered, because some machines that run
// tests may not raise them.
const hostScript = `set -e
mount -t tmpfs -o mode=755 tmpfs /srv
for dir in /etc /usr/local /usr/share/containers; do
	mkdir -p /srv/private$dir
done
cp -a /etc/. /srv/private/etc
cp -a /usr/share/containers/. /srv/private/usr/share/containers
cp -a "$1/." /srv/private/usr/local
cp -a "$2/usr/local/." /srv/private/usr/local
rm -rf /srv/private/etc/containers/containers.conf* /srv/private/etc/crio
mkdir -p /srv/private/etc/containers /srv/alice
for dir in bin dev etc proc run sys tmp; do
	mkdir -p /srv/rootfs/$dir
done
cp /bin/busybox /srv/rootfs/bin
for tool in sh sleep ip true; do
	ln -s busybox /srv/rootfs/bin/$tool
done
cp -a /srv/rootfs /srv/alice/rootfs
cd /srv/private/etc
cat > containers/containers.conf <<'CONF'
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
CONF
cat > containers/storage.conf <<'CONF'
[storage]
driver = "vfs"
graphroot = "/srv/storage"
runroot = "/srv/storage.run"
CONF
echo 'alice:x:64100:64100::/srv/alice:/bin/sh' >> passwd
echo 'alice:x:64100:' >> group
echo 'alice:6410000:65536' | tee subuid > subgid
printf "[engine]\\nhooks_dir = []\\n" > /srv/own.conf
chown -hR 64100:64100 /srv/alice
for dir in /etc /usr/local /usr/share/containers; do
	mount --bind /srv/private$dir $dir
done
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mount -t bpf bpf /sys/fs/bpf
mkdir -p -m 700 /run/user/64100
chown 64100:64100 /run/user/64100
echo ready
while sleep 1000 & wait; do :; done # it reaps what engines leave
`

func cmdHost(ts *testscript.TestScript, programs string) {
	w := stateOf(ts)
	files := filepath.Join(ts.Getenv("WORK"), "files")
	// As "make install" installs them, but for what it does with "lanyard hooks install".
	if out, err := exec.Command("make", "-C", "../..", "install-files", "DESTDIR="+files).CombinedOutput(); err != nil {
		ts.Fatalf("make install-files: %v: %s", err, out)
	}
	holder := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private",
		"sh", "-c", hostScript, "host", programs, files)
	said, err := holder.StdoutPipe()
	ts.Check(err)
	var stderr strings.Builder
	holder.Stderr = &stderr
	ts.Check(holder.Start())
	end := holder.Process.Pid
	w.tb.Cleanup(func() {
		unix.Kill(end, unix.SIGKILL)
		holder.Wait()
		removeCgroups()
	})
	if line, err := bufio.NewReader(said).ReadString('\n'); line != "ready\n" {
		ts.Fatalf("the host's directories: %q, %v: %s", line, err, stderr.String())
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", holder.Process.Pid))
	ts.Check(err)
	first, err := strconv.Atoi(strings.TrimSpace(string(children)))
	ts.Check(err)
	end = first // process 1 there: it ends after all others
	enter := fmt.Sprintf("#!/bin/sh\nexec nsenter --target %d --mount --pid --net=%s "+
		"env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ", first, ts.Getenv(varNetns))
	for name, as := range map[string]string{
		"inside": "HOME=/root ",
		"user": "HOME=/srv/alice XDG_RUNTIME_DIR=/run/user/64100 env -C /srv/alice " +
			"setpriv --reuid 64100 --regid 64100 --clear-groups ",
	} {
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(enter+as+"\"$@\"\n"), 0o755))
	}
	ts.Setenv("PATH", ts.Getenv("WORK")+":"+ts.Getenv("PATH"))
}

// removeCgroups removes the empty cgroups that podman leaves when its containers are killed.
func removeCgroups() {
	for _, pattern := range []string{"libpod_parent/[cl]*", "*/libpod_parent/[cl]*", "libpod_parent", "*/libpod_parent"} {
		groups, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup", pattern))
		for _, g := range groups {
			os.Remove(g) // one that is in use stays
		}
	}
}
