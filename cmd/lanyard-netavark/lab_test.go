package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/cmd/internal/serve"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

func TestMain(m *testing.M) {
	hooklab.PluginMain(m, main, func(ctx context.Context, p wiring.Paths, log *slog.Logger) error {
		return serve.Run(ctx, serve.Options{Paths: p, Log: log, Sweep: time.Hour})
	})
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// world is a lab whose engine has the plugin.
type world struct{ *hooklab.Lab }

func newWorld(tb testing.TB, c testenv.Config) *world {
	tb.Helper()
	return &world{hooklab.New(tb, c)}
}

// define creates the network "web" on a parent, with name servers.
func (w *world) define(parent string) { w.defineWith(parent, "") }

// defineWith is define with a store of leases.
func (w *world) defineWith(parent string, leases network.LeaseStore) {
	w.TB.Helper()
	w.Define("web", parent, func(d *network.Definition) {
		d.DNS, d.DNSSearch = []netip.Addr{netip.MustParseAddr("192.168.50.1")}, []string{"lan.example"}
		d.Leases = leases
	}, "192.168.50.0/24")
}

// plugin runs one command of the plugin as netavark does, and returns its output. The error is that
// of the plugin's error message.
func (w *world) plugin(in any, args ...string) ([]byte, error) {
	w.TB.Helper()
	text, err := json.Marshal(in)
	must(w.TB, err)
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "LANYARD_ROOT="+w.Root)
	cmd.Stdin = bytes.NewReader(text)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if w.Host.Run(cmd) == nil {
		return out.Bytes(), nil
	}
	var failed struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(out.Bytes(), &failed); err != nil || failed.Error == "" {
		w.TB.Fatalf("%q: the error is %q, %v", args, out.String(), err)
	}
	return nil, errors.New(failed.Error)
}
