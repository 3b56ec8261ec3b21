//go:build failpoint

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// command returns an ADD of a plugin process, for the namespace at path. program executes its last
// argument.
func (w *world) command(id, path string, program ...string) (*exec.Cmd, *bytes.Buffer) {
	w.TB.Helper()
	self, err := os.Executable()
	must(w.TB, err)
	program = append(program, self)
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Env = append(os.Environ(), "LANYARD_ROOT="+w.Root, "CNI_COMMAND=ADD", "CNI_CONTAINERID="+id, "CNI_NETNS="+path,
		"CNI_IFNAME=eth0", "CNI_PATH=/nowhere")
	cmd.Stdin = strings.NewReader(`{"cniVersion":"1.1.0","name":"lan","type":"lanyard-cni","network":"web"}`)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	return cmd, &stderr
}

// TestWithoutService checks that an ADD succeeds without the service, and says why, where the service
// is killed during the ADD or cannot see the namespace.
func TestWithoutService(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24")
	w.Define("web", w.Trunk, nil, "192.168.50.0/24")
	lan := w.list("lan", plugin("web"))

	for _, step := range []string{"intent", "link", "commit"} {
		service, s := w.StartService("LANYARD_FAILPOINT="+step), newSandbox(t)
		cmd, stderr := w.command("c1", s.path)
		err := w.Host.Run(cmd)
		service.Killed()
		if err != nil || stderr.String() !=
			"lanyard: the service ended before it replied: the plugin goes on without the service\n" {
			t.Errorf("the service is killed at %q: %v: %s", step, err, stderr)
		}
		if recs := w.Records(); len(recs) != 1 || recs[0].State != "attached" || recs[0].Verdict.Code != verify.OK {
			t.Errorf("the service is killed at %q: the records are %+v", step, recs)
		}
		must(t, w.del(lan, s.conf("c1")))
		w.wantNothing("web")
	}

	service, s := w.StartService(), newSandbox(t)
	hidden := filepath.Join(t.TempDir(), "netns")
	must(t, os.WriteFile(hidden, nil, 0o600))
	cmd, stderr := w.command("c1", hidden, "unshare", "--mount", "sh", "-c", `mount --bind "$0" "$1" && exec "$2"`, s.path,
		hidden)
	if err := w.Host.Run(cmd); err != nil || !strings.Contains(stderr.String(), hidden+`" is another file in its mount`) {
		t.Errorf("a path that the service cannot see: %v: %s", err, stderr)
	}
	if strings.Contains(service.Logged(), "attached") {
		t.Errorf("the service has attached: %s", service.Logged())
	}
	must(t, w.del(lan, s.conf("c1")))
	w.wantNothing("web")
}

// TestFailedInLog checks that the service's log names container, network and verdict of a failed ADD.
func TestFailedInLog(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.Define("web", w.Trunk, func(d *network.Definition) { d.Verify = verify.Strict }, "192.168.50.0/24")
	service, s := w.StartService(), newSandbox(t)
	cmd, _ := w.command("c1", s.path)
	if err := w.Host.Run(cmd); err == nil {
		t.Error("a container without a gateway was attached")
	}
	const said = "msg=failed .*command=ADD container=c1:eth0:lan networks=\\[web\\] verdict=vlan-silent err="
	if !regexp.MustCompile(said).MatchString(service.Logged()) {
		t.Errorf("the service did not log %s: %s", said, service.Logged())
	}
}

// TestKilledPlugin checks that the service undoes an ADD if the plugin is killed.
func TestKilledPlugin(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.Define("web", w.Trunk, func(d *network.Definition) { d.Verify = verify.Strict }, "192.168.50.0/24")
	w.StartService()
	s := newSandbox(t)
	cmd, _ := w.command("c1", s.path)
	must(t, w.Host.Start(cmd))
	testenv.Eventually(t, "the intent", func() error {
		if len(w.Records()) == 0 { // the gateway does not answer: that takes a second
			return errors.New("no record")
		}
		return nil
	})
	must(t, cmd.Process.Signal(unix.SIGKILL))
	cmd.Wait()
	testenv.Eventually(t, "the end of the attach", func() error {
		if recs := w.Records(); len(recs) > 0 {
			return errors.New("a record is left")
		}
		return nil
	})
	w.wantNothing("web")
}
