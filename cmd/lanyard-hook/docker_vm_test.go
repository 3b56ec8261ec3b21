//go:build vm

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/cmd/internal/engines"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/service"
	"github.com/lanyard-net/lanyard/packaging"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// dockerEngine is a dockerd in the host's namespace, with all its files in a directory of the test.
type dockerEngine struct {
	*engine
	daemon *exec.Cmd
}

// newDocker starts a dockerd that reads the CDI specification as "lanyard hooks install --docker"
// writes it, and imports an image.
func newDocker(t *testing.T) *dockerEngine {
	t.Helper()
	d := &dockerEngine{engine: newEngine(t)}
	must(t, os.Mkdir(d.path("cdi"), 0o755))
	must(t, os.WriteFile(d.path("cdi/lanyard.json"), []byte(packaging.CDISpec(d.hookProgram())), 0o644))
	settings := map[string]any{
		"cdi-spec-dirs": []string{d.path("cdi")}, "live-restore": true,
		"bridge": "none", "iptables": false, "ip6tables": false, "ip-forward": false, "userland-proxy": false,
		"storage-driver": "vfs", "data-root": d.path("data"), "exec-root": d.path("exec"), "pidfile": d.path("pid"),
		"hosts": []string{d.socket()},
	}
	if needsFeature(t) {
		settings["features"] = map[string]bool{"cdi": true}
	}
	text, err := json.Marshal(settings)
	must(t, err)
	must(t, os.WriteFile(d.path("daemon.json"), text, 0o644))
	t.Setenv("DOCKER_HOST", d.socket())
	d.start()
	t.Cleanup(d.end)
	must(t, exec.Command("tar", "-C", d.rootfs(), "-cf", d.path("image.tar"), ".").Run())
	d.must("docker", "import", d.path("image.tar"), "tiny")
	return d
}

// needsFeature reports whether Docker reads CDI specifications only with a feature of its
// configuration: before 28.2, as docs/engines.md says.
func needsFeature(t *testing.T) bool {
	t.Helper()
	out, err := exec.Command("dockerd", "--version").Output()
	must(t, err)
	var major, minor int
	if _, err := fmt.Sscanf(string(out), "Docker version %d.%d", &major, &minor); err != nil {
		t.Fatalf("dockerd says %q: %v", out, err)
	}
	return major < 28 || major == 28 && minor < 2
}

func (d *dockerEngine) path(name string) string { return filepath.Join(d.dir, name) }

func (d *dockerEngine) socket() string { return "unix://" + d.path("sock") }

// hookProgram writes a program that makes the test binary the hook, with the test's files.
func (d *dockerEngine) hookProgram() string {
	d.t.Helper()
	self, err := os.Executable()
	must(d.t, err)
	path := d.path("lanyard-hook")
	text := fmt.Sprintf("#!/bin/sh\nLANYARD_TEST_AS_HOOK=1 exec %s --root %s \"$@\"\n", self, d.w.root)
	must(d.t, os.WriteFile(path, []byte(text), 0o755))
	return path
}

func (d *dockerEngine) start() {
	d.t.Helper()
	log, err := os.OpenFile(d.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(d.t, err)
	defer log.Close()
	d.daemon = exec.Command("dockerd", "--config-file", d.path("daemon.json"))
	d.daemon.Stdout, d.daemon.Stderr = log, log
	must(d.t, d.w.Host.Start(d.daemon))
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if _, err = d.run("docker", "version"); err == nil {
			return
		}
	}
	d.t.Fatalf("dockerd does not answer: %v: %s", err, d.log())
}

func (d *dockerEngine) log() string {
	text, _ := os.ReadFile(d.path("log"))
	return string(text)
}

// stop ends the daemon. Its containers live on (live-restore).
func (d *dockerEngine) stop() {
	d.t.Helper()
	must(d.t, d.daemon.Process.Signal(unix.SIGTERM))
	timer := time.AfterFunc(time.Minute, func() { d.daemon.Process.Kill() })
	defer timer.Stop()
	if err := d.daemon.Wait(); err != nil {
		d.t.Errorf("dockerd: %v: %s", err, d.log())
	}
}

func (d *dockerEngine) end() {
	if ids, err := d.run("docker", "ps", "--all", "--quiet"); err == nil && ids != "" {
		d.run(append([]string{"docker", "rm", "--force"}, strings.Fields(ids)...)...)
	}
	d.stop()
	// dockerd leaves the mount of its own namespace.
	if err := unix.Unmount(d.path("exec/netns/default"), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.ENOENT) {
		d.t.Error(err)
	}
}

// onLAN are the options of docs/engines.md.
var onLAN = []string{"--network", "none", "--device", "io.lanyard/lan=on", "--annotation", "io.lanyard.network=web"}

// docker runs a container in the background.
func (d *dockerEngine) docker(name string, command []string, options ...string) (string, error) {
	d.t.Helper()
	args := append([]string{"docker", "run", "--detach", "--name", name, "--cap-add", "NET_RAW"}, options...)
	return d.run(append(append(args, "tiny"), command...)...)
}

// attached checks that the container is on record with its present process, and that the gateway
// answers it.
func (d *dockerEngine) attached(when, name string) (a hook.Attachment) {
	d.t.Helper()
	if a = d.w.Record(); a.Verdict.Code != verify.OK || !a.InUse() {
		d.t.Errorf("%s: the record is %+v", when, a)
	}
	d.must("docker", "exec", name, "ping", "-c1", "-W5", "192.168.50.1")
	return a
}

// reported waits until the service has reported that a container is off the LAN, for "lanyard why",
// too.
func (d *dockerEngine) reported(b *brokered, name string) {
	d.t.Helper()
	testenv.Eventually(d.t, "a report of "+name, func() error {
		failures, err := service.Kept(d.w.Paths().Failures()).All()
		if err != nil {
			return err
		}
		text := fmt.Sprintf("container %q runs off the LAN", name)
		if !strings.Contains(b.logged(), strings.ReplaceAll(text, `"`, `\"`)) ||
			!slices.ContainsFunc(failures, func(f service.Failure) bool { return strings.Contains(f.Error, text) }) {
			return fmt.Errorf("not reported: %v, %s", failures, b.logged())
		}
		return nil
	})
}

// TestDocker checks each way in which Docker starts and ends a container.
func TestDocker(t *testing.T) {
	mustBeInVM(t)
	testenv.InSuite(t, "trixie", "forky")
	testenv.OnOneKernel(t, "6.12")
	d := newDocker(t)
	d.w.AddGateway(50, "192.168.50.1/24")
	d.w.Define("web", "eth9.50", func(def *network.Definition) {
		def.DNS = []netip.Addr{netip.MustParseAddr("192.168.50.1")}
	}, "192.168.50.0/24")
	before := d.w.Links(d.w.Host)
	sleep := []string{"sleep", "300"}

	if out, err := d.docker("one", sleep, append([]string{"--dns", "192.168.50.53"}, onLAN...)...); err != nil {
		t.Fatalf("docker run: %v: %s", err, out)
	}
	if a := d.attached("run", "one"); a.Endpoint.Tags.String() != "VLAN 50" {
		t.Errorf("tags are %v", a.Endpoint.Tags)
	}
	// Docker mounts a resolv.conf in every container: its --dns has effect, and not the network's.
	if out := d.must("docker", "exec", "one", "cat", "/etc/resolv.conf"); !strings.Contains(out, "192.168.50.53") ||
		strings.Contains(out, "192.168.50.1\n") {
		t.Errorf("resolv.conf is %q", out)
	}
	d.must("docker", "stop", "--time", "0", "one")
	d.w.WantNothing("web", before)
	d.must("docker", "start", "one")
	d.attached("start", "one")
	d.must("docker", "restart", "--time", "0", "one")
	d.attached("restart", "one")
	d.keeps("docker", [][2]string{{"rename one w1", "w1"}})
	d.keeps("docker", d.changes())
	d.keeps("docker", [][2]string{{"rename w2 one", "one"}})

	// live-restore: the container outlives the daemon, and the next one ends it.
	pid := d.w.Record().Containers[0].Process
	d.stop()
	if a := d.w.Record(); !a.InUse() || a.Containers[0].Process != pid {
		t.Errorf("without the daemon the record is %+v", a)
	}
	d.start()
	d.attached("restart of the daemon", "one")
	d.must("docker", "rm", "--force", "one")
	d.w.WantNothing("web", before)

	// A restart policy starts the container again.
	out, err := d.docker("again", []string{"sleep", "5"}, append([]string{"--restart", "always"}, onLAN...)...)
	if err != nil {
		t.Fatalf("docker run: %v: %s", err, out)
	}
	pid = d.w.Record().Containers[0].Process
	again := func() bool {
		recs := d.w.Records()
		return len(recs) == 1 && recs[0].State == hook.Attached && recs[0].Containers[0].Process != pid
	}
	for end := time.Now().Add(time.Minute); !again(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the container does not run again: %+v", d.w.Records())
		}
	}
	d.must("docker", "rm", "--force", "again")
	d.w.WantNothing("web", before)

	// The file of docs/engines.md.
	must(t, os.WriteFile(d.path("compose.yaml"), []byte(documentedCompose(t)), 0o644))
	compose := []string{"docker", "compose", "--project-directory", d.dir, "--project-name", "lan"}
	for range 2 { // the second time it creates the container again
		d.must(append(compose, "up", "--detach", "--force-recreate")...)
		d.attached("compose up", "lan-web-1")
	}
	d.must(append(compose, "restart", "--timeout", "0")...)
	d.attached("compose restart", "lan-web-1")
	d.must(append(compose, "down", "--timeout", "0")...)
	d.w.WantNothing("web", before)
}

// documentedCompose returns the compose file of docs/engines.md for Docker, with the test's image and network.
func documentedCompose(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/engines.md")
	must(t, err)
	found := regexp.MustCompile(`(?s)\n\n    services:\n.*?\n\n`).Find(text)
	if found == nil {
		t.Fatal("docs/engines.md has no compose file")
	}
	file := strings.ReplaceAll(string(found), "\n    ", "\n")
	image := "tiny\n    command: sleep 300\n    cap_add: [NET_RAW]"
	return strings.NewReplacer("IMAGE", image, "web50", "web").Replace(file)
}

// TestDockerRefusals checks that an error of the hook reaches the user of Docker, and that a
// container off the LAN is found.
func TestDockerRefusals(t *testing.T) {
	mustBeInVM(t)
	testenv.InSuite(t, "trixie", "forky")
	testenv.OnOneKernel(t, "6.12")
	d := newDocker(t)
	before := d.w.defineVLAN50()
	sleep := []string{"sleep", "300"}
	for name, refused := range map[string]struct {
		options []string
		word    string
	}{
		"unknown": {append(slices.Clone(onLAN[:4]), "--annotation", "io.lanyard.network=nowhere"),
			`lanyard: network "nowhere"`},
		"without": {onLAN[:4], "has no annotation io.lanyard.network"},
		"misspelt": {append(slices.Clone(onLAN), "--annotation", "io.lanyard.vrfy=strict"),
			`did you mean "io.lanyard.verify"?`},
		"hosts":      {append([]string{"--network", "host"}, onLAN[2:]...), "the host's own"},
		"wrong-kind": {append(slices.Clone(onLAN[:2]), "--device", "io.lanyard/lan=off"), "unresolvable CDI devices"},
	} {
		if out, err := d.docker(name, sleep, refused.options...); err == nil || !strings.Contains(out, refused.word) {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	d.w.WantNothing("web", before)

	// Without the device there is no hook: "lanyard hooks status" finds the container, and a service
	// reports it, as soon as it starts.
	b := &brokered{world: d.w, log: d.path("service.log")}
	if out, err := d.docker("off", sleep, append(slices.Clone(onLAN[:2]), onLAN[4:]...)...); err != nil {
		t.Fatalf("docker run: %v: %s", err, out)
	}
	if recs := d.w.Records(); len(recs) > 0 {
		t.Errorf("attached without the device: %+v", recs)
	}
	found, err := engines.DockerRunning(t.Context())
	if err != nil || len(found) != 1 || found[0].Name != "off" || found[0].Pid == 0 || found[0].Network != "none" ||
		found[0].Annotations["io.lanyard.network"] != "web" {
		t.Errorf("running are %+v, %v", found, errors.Join(err))
	}
	b.start(dockerOf + "=" + d.dir)
	t.Cleanup(func() { must(t, unix.Unmount(b.guards(), unix.MNT_DETACH)) })
	t.Cleanup(b.stop)
	d.reported(b, "off")
	if out, err := d.docker("good", sleep, onLAN...); err != nil {
		t.Fatalf("docker run: %v: %s", err, out)
	}
	d.attached("with the service", "good")
	d.must("docker", "restart", "--time", "0", "off")
	if out, err := d.docker("late", sleep, append(slices.Clone(onLAN[:2]), onLAN[4:]...)...); err != nil {
		t.Fatalf("docker run: %v: %s", err, out)
	}
	d.reported(b, "late")
	if n := strings.Count(b.logged(), `container \"off\" runs off the LAN`); n != 2 ||
		strings.Contains(b.logged(), `container \"good\" runs`) {
		t.Errorf("\"off\" is reported %d times, want 2: %s", n, b.logged())
	}
	d.must("docker", "rm", "--force", "good", "late", "off")
}
