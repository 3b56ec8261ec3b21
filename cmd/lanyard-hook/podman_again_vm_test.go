//go:build vm

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// containersConf is where podman reads the settings of this test's drop-in file.
const containersConf = "/etc/containers/containers.conf.d/60-lanyard-test.conf"

// TestPodmanStartsAgain checks which way of naming the hooks holds when podman starts a container
// again. podman does not keep --hooks-dir with the container: without it, the container is off the
// LAN, without an error. hooks_dir in containers.conf brings it back onto the LAN.
func TestPodmanStartsAgain(t *testing.T) {
	mustBeInVM(t)
	testenv.OnOneKernel(t, "6.12")
	for _, runtime := range testenv.OneRuntime(map[string]string{"6.12": "runc"}) {
		t.Run(runtime, func(t *testing.T) {
			e := newEngine(t)
			e.w.AddGateway(50, "192.168.50.1/24")
			e.w.Define("web", "eth9.50", nil, "192.168.50.0/24")
			before := e.w.Links(e.w.Host)
			withHooks, podman := e.podman(runtime), e.plainPodman(runtime)
			t.Cleanup(func() { e.run(withHooks("rm", "--all", "--force", "--time", "0")...) })
			e.must(withHooks("run", "--detach", "--name", "w", "--network", "none", "--cap-add", "NET_RAW",
				"--annotation", "io.lanyard.network=web", "--rootfs", e.rootfs(), "sleep", "300")...)
			e.must(podman("exec", "w", "ping", "-c1", "-W5", "192.168.50.1")...)
			again := map[string]func(){
				"start": func() {
					e.must(podman("stop", "--time", "0", "w")...)
					e.must(podman("start", "w")...)
				},
				"restart": func() { e.must(podman("restart", "--time", "0", "w")...) },
			}

			for verb, do := range again {
				do()
				if out, err := e.run(podman("exec", "w", "ip", "link", "show", "eth0")...); err == nil {
					t.Errorf("podman kept --hooks-dir: after %s there is %s", verb, out)
				}
			}
			writeContainersConf(t, fmt.Sprintf("[engine]\nhooks_dir = [%q]\n", e.hooksDir()))
			for verb, do := range again {
				do()
				if a := e.w.Record(); a.Verdict.Code != verify.OK {
					t.Errorf("after %s the record is %+v", verb, a)
				}
				e.must(podman("exec", "w", "ping", "-c1", "-W5", "192.168.50.1")...)
			}
			e.must(podman("rm", "--force", "--time", "0", "w")...)
			e.w.WantNothing("web", before)
		})
	}
}

// writeContainersConf writes the drop-in file for the rest of the test.
func writeContainersConf(t *testing.T, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(containersConf), 0o755))
	must(t, os.WriteFile(containersConf, []byte(text), 0o644))
	t.Cleanup(func() {
		if err := os.Remove(containersConf); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
}
