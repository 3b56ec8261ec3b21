//go:build vm

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// TestNewcomer does what the README says, in a Debian 13 with systemd and without Lanyard: five commands
// from the package to a container on a VLAN. Then the VLAN breaks, and then its gateway stops: doctor,
// ps, verify, the page and the metrics say the same of each, in the same words.
func TestNewcomer(t *testing.T) {
	mustBeInVM(t)
	testenv.InSuite(t, "trixie")
	testenv.ByName(t)
	s := newSystem(t, testenv.Config{Trunk: "eth0", VLANs: []uint16{50, 60}})
	gateway := s.AddGateway(50, "192.168.50.1/24")
	s.AddGateway(60, "192.168.60.1/24")
	s.boot()
	dir := s.newcomersHome()
	commands := readmeCommands(t)
	out := ""
	for _, line := range commands { // apt asks whether to install
		out = s.mustAs(0, "cd "+dir+"; export DEBIAN_FRONTEND=noninteractive; yes | "+line)
		t.Logf("# %s\n%s", line, out)
	}
	t.Cleanup(func() {
		if s.cmd != nil {
			s.mustAs(0, "podman rm --force --time 0 web")
		}
	})
	works := regexp.MustCompile(`(?m)^[0-9a-f]{12} +web50 +eth0 +192.168.50.2/24 .* 50 +ok `)
	if len(commands) != 5 || !works.MatchString(out) {
		t.Fatalf("%d commands; the last one says %s", len(commands), out)
	}
	s.mustAs(0, "nsenter --net=/proc/$(podman inspect --format '{{.State.Pid}}' web)/ns/net ping -c1 -W5 192.168.50.1")
	s.override(strings.Replace(documentedOptions(t), "SupplementaryGroups=_lldpd\n", "", 1)) // lldpd is not installed
	s.agree(verify.OK)

	s.TakeOffTrunk(50)
	s.agree(verify.VLANSilent)
	if out, err := s.as(0, "podman restart web"); err == nil {
		t.Errorf("on a VLAN that is silent, a restart in mode strict says %s", out)
	}
	if out := s.mustAs(0, "lanyard why"); !strings.Contains(out, "vlan-silent: gateway 192.168.50.1 did not answer") {
		t.Errorf("lanyard why says %s", out)
	}
	s.PutOnTrunk(50)
	s.mustAs(0, "podman start web")
	s.agree(verify.OK)

	other := exec.Command("ping", "-n", "-b", "-i", "0.2", "192.168.50.255") // keeps the VLAN alive
	must(t, s.AddGateway(50, "192.168.50.9/24").Start(other))
	t.Cleanup(func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	})
	gateway.RemoveAddr("192.168.50.1/24")
	s.agree(verify.GatewaySilent)
	gateway.AddAddr("192.168.50.1/24")
	s.agree(verify.OK)
}

// readmeCommands returns the commands of the README's first steps.
func readmeCommands(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	must(t, err)
	found := regexp.MustCompile(`(?s)\n    (apt install .*?)\n\n`).FindSubmatch(text)
	if found == nil {
		t.Fatal("README.md has no first steps")
	}
	return strings.Split(string(found[1]), "\n    ")
}

// newcomersHome returns a directory with the package that "make deb" has built last. podman has the
// image, which it would download elsewhere.
func (s *installed) newcomersHome() string {
	s.t.Helper()
	built, err := exec.Command("sh", "-c", "ls -t ../../bin/lanyard_*_amd64.deb | head -n 1").Output()
	must(s.t, err)
	deb := strings.TrimSpace(string(built))
	if deb == "" {
		s.t.Fatal("bin has no package: run \"make deb\" first")
	}
	dir, err := os.MkdirTemp("/srv", "lanyard-test") // no other mount is over it
	must(s.t, err)
	s.t.Cleanup(func() { testenv.RemoveAll(s.t, dir) })
	text, err := os.ReadFile(deb)
	must(s.t, err)
	must(s.t, os.WriteFile(filepath.Join(dir, filepath.Base(deb)), text, 0o644))
	must(s.t, os.WriteFile("/etc/containers/storage.conf", fmt.Appendf(nil,
		"[storage]\ndriver = \"vfs\"\ngraphroot = \"%s/storage\"\nrunroot = \"/run/storage\"\n", dir), 0o644))
	s.t.Cleanup(func() {
		must(s.t, os.Remove("/etc/containers/storage.conf"))
		if out, err := exec.Command("dpkg", "--purge", "lanyard").CombinedOutput(); err != nil {
			s.t.Errorf("dpkg --purge: %v: %s", err, out)
		}
	})
	s.mustAs(0, fmt.Sprintf("mkdir -p /var/log/apt; tar -C %s -cf %s/image.tar . && podman import --quiet "+
		"--change 'CMD [\"sleep\",\"3600\"]' %[2]s/image.tar docker.io/library/nginx:latest",
		mustRootfs(s.t, filepath.Join(dir, "root"), 0), dir))
	return dir
}

// agree waits until all that shows a verdict shows this one, and checks that the sentences differ in
// times only.
func (s *installed) agree(want verify.Code) {
	s.t.Helper()
	var said map[string]string
	patiently(s.t, string(want)+" from all", func() error {
		var err error
		if said, err = s.said(); err != nil {
			return err
		}
		for who, text := range said {
			if code, _, _ := strings.Cut(text, ": "); code != string(want) {
				return fmt.Errorf("%s says %q; all: %q", who, text, said)
			}
		}
		return nil
	})
	s.t.Logf("%s: %q", want, said)
	times := regexp.MustCompile(`\b[0-9][0-9hm.]*(µs|ms|s)\b`)
	for who, text := range said {
		if want.Good() || who == "metrics" { // which have no sentence that must be equal
			continue
		}
		if got, other := times.ReplaceAllString(text, "T"), times.ReplaceAllString(said["verify"], "T"); got != other {
			s.t.Errorf("%s says %q, verify %q", who, got, other)
		}
	}
}

// said returns what each command and page says of the network: "code: sentence".
func (s *installed) said() (map[string]string, error) {
	said := map[string]string{}
	var rows []struct{ Verdict, Text string }
	read := func(who, line string) error {
		out, _ := s.as(0, line+" 2> /dev/null") // its status says whether the verdict is good
		if err := json.Unmarshal([]byte(out), &rows); err != nil {
			return fmt.Errorf("%s: %w: %s", who, err, out)
		}
		if len(rows) != 1 {
			return fmt.Errorf("%s says %s", who, out)
		}
		said[who] = rows[0].Verdict + ": " + rows[0].Text
		return nil
	}
	page, err := s.get("web.sock", "/map.json")
	if err != nil {
		return nil, err
	}
	said["page"] = containerOf(page)
	metrics, err := s.get("metrics.sock", "/metrics")
	if err != nil {
		return nil, err
	}
	if found := regexp.MustCompile(`verdict="([a-z-]+)"} 1`).FindStringSubmatch(metrics); found != nil {
		said["metrics"] = found[1]
	}
	if err := errors.Join(read("verify", "lanyard verify web50 --format json"),
		read("ps", "lanyard ps --format json")); err != nil {
		return nil, err
	}
	out, _ := s.as(0, "lanyard doctor eth0.50 --format json 2> /dev/null")
	var checks []struct{ Check, State, Text string }
	if err := json.Unmarshal([]byte(out), &checks); err != nil {
		return nil, fmt.Errorf("doctor: %w: %s", err, out)
	}
	for _, c := range checks {
		if c.Check == "gateway" {
			said["doctor"] = strings.TrimPrefix(c.State+": "+c.Text, "wrong: ")
		}
	}
	return said, nil
}

// containerOf returns what a map says of its only container.
func containerOf(text string) string {
	var nodes []struct {
		Kind, Verdict, Text string
		Children            json.RawMessage
	}
	if err := json.Unmarshal([]byte(text), &nodes); err != nil {
		return err.Error()
	}
	for _, n := range nodes {
		if n.Kind == "container" {
			return n.Verdict + ": " + n.Text
		}
		if found := containerOf(string(n.Children)); n.Children != nil && found != "" {
			return found
		}
	}
	return ""
}
