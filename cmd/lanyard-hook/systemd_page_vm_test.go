//go:build vm

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
)

// TestSystemdPage checks that the confined service serves page and metrics with the drop-in of the guide,
// and that they have the switch port from lldpd, whose group the service then has.
func TestSystemdPage(t *testing.T) {
	testenv.ByName(t)
	s := newInstalled(t)
	s.AddGateway(50, "192.168.50.1/24")
	s.boot()
	s.mustAs(0, "systemctl enable --now lanyard.socket; "+
		"lanyard network create web50 --parent eth9.50 --subnet 192.168.50.0/24")
	_, end := s.attached("web50")
	defer end()
	defer s.SpeakLLDP("configure system hostname sw-a", "configure lldp portidsubtype local Gi1/0/7")()
	s.mustAs(0, "mkdir -p /run/lldpd; systemctl start lldpd")
	s.override(strings.ReplaceAll(documentedOptions(t), "/usr/bin/", "/usr/local/bin/"))
	const port = `port "Gi1/0/7" of switch "sw-a" (by lldpd)`
	for _, want := range []struct{ socket, path, text string }{
		{"web.sock", "/", "192.168.50.2/24"},
		{"web.sock", "/map.json", strings.ReplaceAll(port, `"`, `\"`)},
		{"metrics.sock", "/metrics", `network="web50",verdict="ok"} 1`},
	} {
		patiently(t, want.text, func() error {
			got, err := s.get(want.socket, want.path)
			if err == nil && !strings.Contains(got, want.text) {
				err = errors.New(got)
			}
			return err
		})
	}
	if out := s.mustAs(0, "lanyard map"); !strings.Contains(out, port) {
		t.Errorf("lanyard map says %s", out)
	}
	// The service's verdict has it, too.
	s.TakeOffTrunk(50)
	patiently(t, "the switch's words in the verdict", func() error {
		got, err := s.get("web.sock", "/map.json")
		if err == nil && !strings.Contains(got, "carries VLANs 1, 60, 70, and not 50: add it there") {
			err = errors.New(got)
		}
		return err
	})
}

// documentedOptions is the drop-in of docs/monitoring.md that gives the service a page and metrics.
func documentedOptions(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/monitoring.md")
	must(t, err)
	found := regexp.MustCompile(`(?s)\n    (\[Service\]\n    ExecStart=\n.*?)\n\n`).FindSubmatch(text)
	if found == nil {
		t.Fatal("docs/monitoring.md has no drop-in for the service")
	}
	return strings.ReplaceAll(string(found[1]), "\n    ", "\n") + "\n"
}

// override writes a drop-in as "systemctl edit" does, and restarts the service with it.
func (s *installed) override(text string) {
	s.t.Helper()
	dir := filepath.Join(s.dir, "units/lanyard.service.d")
	must(s.t, os.MkdirAll(dir, 0o755))
	must(s.t, os.WriteFile(filepath.Join(dir, "override.conf"), []byte(text), 0o644))
	s.mustAs(0, "systemctl daemon-reload; systemctl restart lanyard.service")
}

// get asks for a page at a socket of the system.
func (s *installed) get(socket, path string) (string, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", fmt.Sprintf("/proc/%d/root/run/lanyard/%s", s.pid, socket))
		}}}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return "", err
	}
	got, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	if err == nil && got.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s at %s: %s: %s", path, socket, got.Status, body)
	}
	return string(body), err
}
