package bpf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// orderEnv passes an order to a process of this binary, which then runs no tests.
const orderEnv = "LANYARD_BPF_ORDER"

// An order is what another process does with a datapath, as a hook would.
type order struct {
	Options Options
	Do      string
	Trunk   int             `json:",omitempty"`
	Expect  verify.Endpoint `json:",omitempty"`
}

func (o order) run() error {
	d := New(o.Options)
	defer d.Close()
	switch o.Do {
	case "prepare":
		return d.Prepare(o.Trunk)
	case "release":
		return d.Release(o.Trunk)
	case "expect":
		return d.Expect(o.Expect)
	case "forget":
		return d.Forget(o.Expect)
	case "emitter":
		_, err := d.Emitter()
		return err
	}
	return fmt.Errorf("do %q: no such order", o.Do)
}

func TestMain(m *testing.M) {
	if text := os.Getenv(orderEnv); text != "" {
		var o order
		err := json.Unmarshal([]byte(text), &o)
		if err == nil {
			err = o.run()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	files := mustFiles()
	code := m.Run()
	if left := mustMounts(); left != "" {
		fmt.Fprintf(os.Stderr, "bpffs that are still mounted, with their pins:\n%s", left)
		code = 1
	}
	if after := mustFiles(); len(after) > len(files)+runtimeFiles {
		fmt.Fprintf(os.Stderr, "files open before and after the tests:\n%q\n%q\n", files, after)
		code = 1
	}
	os.Exit(code)
}

// runtimeFiles is the number of files that Go's poller opens once and keeps.
const runtimeFiles = 2

// mustFiles returns the files that this process has open.
func mustFiles() (found []string) {
	all, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		panic(err)
	}
	for _, path := range all {
		if target, err := os.Readlink(path); err == nil {
			found = append(found, target)
		}
	}
	return found
}

// mountsMade are the directories on which tests have mounted a bpffs.
var mountsMade []string

// mustMounts returns the lines of mountinfo for those that are still mounted.
func mustMounts() (found string) {
	all, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(all)) {
		if f := strings.Fields(line); len(f) > 4 && slices.Contains(mountsMade, f[4]) {
			found += line
		}
	}
	return found
}

// process returns a command that carries out an order.
func process(tb testing.TB, o order) *exec.Cmd {
	tb.Helper()
	self, err := os.Executable()
	must(tb, err)
	text, err := json.Marshal(o)
	must(tb, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), orderEnv+"="+string(text))
	cmd.Stderr = new(bytes.Buffer)
	return cmd
}

// finish runs a command inside a namespace. Its error contains the command's output.
func finish(n *testenv.Namespace, cmd *exec.Cmd) error {
	err := n.Run(cmd)
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(cmd.Stderr.(*bytes.Buffer).String()))
	}
	return nil
}
