//go:build vm

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// configured makes "podman" alone use this engine's storage, runtime and hooks for the rest of the test: so
// does the podman that "lanyard" asks for names.
func (e *engine) configured(runtime string) {
	e.t.Helper()
	storage := filepath.Join(e.dir, "storage.conf")
	must(e.t, os.WriteFile(storage, fmt.Appendf(nil, "[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n",
		e.dir+"/storage", e.dir+"/runroot"), 0o644))
	e.t.Setenv("CONTAINERS_STORAGE_CONF", storage)
	writeContainersConf(e.t, fmt.Sprintf("[engine]\nruntime = %q\nhooks_dir = [%q]\n", runtime, e.hooksDir()))
	e.t.Cleanup(func() { e.run("podman", "rm", "--all", "--force", "--time", "0") })
}

// lanyard returns the command line of the built program for this engine's host.
func (e *engine) lanyard(args ...string) []string {
	return append([]string{"../../bin/lanyard", "--root", e.w.root}, args...)
}

// keeps runs commands of an engine that change a running container, or all of them. Each is given with the
// container's name after it. It checks that the container stays on the LAN as it was, and that "lanyard"
// finds it by its name.
func (e *engine) keeps(program string, commands [][2]string) {
	e.t.Helper()
	first := e.w.Record()
	for _, c := range commands {
		line, name := c[0], c[1]
		e.must(append([]string{program}, strings.Fields(line)...)...)
		if a := e.w.Record(); a.ID != first.ID || a.State != hook.Attached || len(a.Containers) != 1 {
			e.t.Errorf("after %s, the record is %+v", line, a)
		}
		for want, args := range map[string][]string{
			"attached ok":                  {"ps", "--format", "{{.State}} {{.Verdict}}"},
			first.Addrs[0].Addr().String(): {"inspect", "--format", "{{.Address}}", name},
			"ok":                           {"verify", "--format", "{{.Verdict}}", name},
			"nothing to release":           {"gc"},
		} {
			if out := strings.TrimSpace(e.must(e.lanyard(args...)...)); out != want {
				e.t.Errorf("after %s, lanyard %q says %q, want %q", line, args, out, want)
			}
		}
		// Its exit status is that of all checks, also of the configuration.
		status, _ := e.run(e.lanyard("hooks", "status")...)
		if !strings.Contains(status, "1 with an annotation of Lanyard, all attached") {
			e.t.Errorf("after %s, the status of the hooks is %s", line, status)
		}
	}
}

// changes are the commands that podman and Docker have for a running container w1, named w2 then.
func (e *engine) changes() [][2]string {
	e.t.Helper()
	file := filepath.Join(e.dir, "file")
	must(e.t, os.WriteFile(file, []byte("text"), 0o644))
	return [][2]string{
		{"pause w1", "w1"}, {"unpause w1", "w1"}, {"rename w1 w2", "w2"}, {"update --cpu-shares 512 w2", "w2"},
		{"cp " + file + " w2:/tmp/file", "w2"}, {"cp w2:/tmp/file " + file, "w2"},
	}
}

// TestPodmanCommands runs the commands of podman that change a running container, or all of them: each
// leaves it on the LAN as it was, or releases what it has. "lanyard" finds it by its name.
func TestPodmanCommands(t *testing.T) {
	mustBeInVM(t)
	testenv.ByName(t)
	e := newEngine(t)
	before := e.w.defineVLAN50()
	e.configured("crun")
	// An image: podman 5.8.6 updates no container with --rootfs ("healthcheck-timeout must be …").
	image := filepath.Join(e.dir, "image.tar")
	e.must("tar", "-C", e.rootfs(), "-cf", image, ".")
	e.must("podman", "import", image, "localhost/plain")
	e.must("podman", "run", "--detach", "--name", "w1", "--network", "none", "--cap-add", "NET_RAW", "--annotation",
		"io.lanyard.network=web", "localhost/plain", "sleep", "600")
	first := e.w.Record()
	e.keeps("podman", e.changes())
	e.must("podman", "exec", "w2", "ping", "-c1", "-W5", "192.168.50.1")
	if out, err := e.run(e.lanyard("verify", "w1")...); err == nil || !strings.Contains(out, `or network "w1"`) {
		t.Errorf("verify by the earlier name: %v: %s", err, out)
	}
	// podman 5.4.2 changes the numbers, and then cannot close its storage: "layer is in use by a container".
	if out, err := e.run("podman", "system", "renumber"); err != nil {
		t.Logf("podman system renumber: %v: %s", err, out)
	}
	e.keeps("podman", [][2]string{{"ps", "w2"}})

	// It stops all containers. podman runs their poststop in the background.
	e.must("podman", "system", "migrate", "--new-runtime", "runc")
	patiently(t, "poststop", func() error {
		if recs := e.w.Records(); len(recs) > 0 {
			return fmt.Errorf("the records are %+v", recs)
		}
		return nil
	})
	if out, err := e.run(e.lanyard("verify", "w2")...); err == nil || !strings.Contains(out, ") is not attached") {
		t.Errorf("verify of a stopped container: %v: %s", err, out)
	}
	e.must("podman", "start", "w2")
	if a := e.w.Record(); a.ID == first.ID || a.Verdict.Code != verify.OK {
		t.Errorf("after migrate and start, the record is %+v", a)
	}
	e.must(e.lanyard("verify", "w2")...)
	e.must("podman", "rm", "--force", "--time", "0", "w2")
	e.w.WantNothing("web", before)
}

// TestPodmanCheckpoint checks that a checkpoint releases what the container has, unless it goes on running.
// runc runs the hook when it restores a container. With crun, CRIU is to create the macvlan itself, and
// cannot: "a macvlan parent for eth0 is required". The container can then be started. CRIU ends a system
// call that waits, so the container's process runs one after the other.
func TestPodmanCheckpoint(t *testing.T) {
	mustBeInVM(t)
	testenv.InSuite(t, "trixie", "forky")
	testenv.ByName(t)
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			e := newEngine(t)
			before := e.w.defineVLAN50()
			e.configured(runtime)
			e.must("podman", "run", "--detach", "--name", "w1", "--network", "none", "--cap-add", "NET_RAW", "--annotation",
				"io.lanyard.network=web", "--annotation", "io.lanyard.ip=192.168.50.9", "--rootfs", e.rootfs(),
				"sh", "-c", "while :; do sleep 1; done")
			e.keeps("podman", [][2]string{{"container checkpoint --leave-running w1", "w1"}})
			first := e.w.Record()
			e.must("podman", "container", "checkpoint", "w1")
			e.w.WantNothing("web", before)
			out, err := e.run("podman", "container", "restore", "w1")
			if works := runtime == "runc"; (err == nil) != works {
				t.Errorf("podman container restore: %v: %s", err, out)
			} else if !works {
				e.w.WantNothing("web", before)
				e.must("podman", "start", "w1")
			}
			if a := e.w.Record(); a.ID == first.ID || a.Verdict.Code != verify.OK || a.Addrs[0] != first.Addrs[0] {
				t.Errorf("after that, the record is %+v", a)
			}
			e.must("podman", "exec", "w1", "ping", "-c1", "-W5", "192.168.50.1")
			e.keeps("podman", [][2]string{{"pause w1", "w1"}, {"unpause w1", "w1"}})
			e.must("podman", "rm", "--force", "--time", "0", "w1")
			e.w.WantNothing("web", before)
		})
	}
}
