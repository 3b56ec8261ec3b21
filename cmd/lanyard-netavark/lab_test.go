package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
)

// The test binary is the plugin where LANYARD_ROOT is set.
func TestMain(m *testing.M) {
	if os.Getenv("LANYARD_ROOT") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// world is a lab, with Lanyard's files in a directory of its own.
type world struct {
	*testenv.Lab
	tb   testing.TB
	root string
}

func newWorld(tb testing.TB, c testenv.Config) *world {
	tb.Helper()
	w := &world{testenv.NewLab(tb, c), tb, filepath.Join(tb.TempDir(), "root")}
	tb.Cleanup(func() {
		if err := os.RemoveAll(wiring.PathsUnder(w.root).BPF); err != nil {
			tb.Errorf("remove pins: %v", err)
		}
	})
	return w
}

// admin runs f in the host's namespace, as an administrator's command does.
func (w *world) admin(f func(ctx context.Context, l *wiring.Lanyard) error) {
	w.tb.Helper()
	must(w.tb, w.Host.Do(func() error {
		l, err := wiring.Open(wiring.PathsUnder(w.root))
		if err != nil {
			return err
		}
		return errors.Join(f(context.Background(), l), l.Close())
	}))
}

// define creates the network "web" on a parent, with name servers.
func (w *world) define(parent string) { w.defineWith(parent, "") }

// defineWith is define with a store of leases.
func (w *world) defineWith(parent string, leases network.LeaseStore) {
	w.tb.Helper()
	gateway := netip.MustParseAddr("192.168.50.1")
	def := &network.Definition{
		Name: "web", ID: network.NewID(), Driver: network.DriverMacvlan, Parent: parent, Mode: network.ModeBridge,
		Subnets: []network.Subnet{{Subnet: netip.MustParsePrefix("192.168.50.0/24"), Gateway: gateway}},
		DNS:     []netip.Addr{gateway}, DNSSearch: []string{"lan.example"}, Leases: leases,
	}
	w.admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.CreateNetwork(ctx, def)
		return err
	})
}

func (w *world) records() (recs []hook.Attachment) {
	w.tb.Helper()
	w.admin(func(ctx context.Context, l *wiring.Lanyard) (err error) {
		recs, err = l.Attachments(ctx)
		return err
	})
	return recs
}

// plugin runs one command of the plugin as netavark does, and returns its output. The error is that
// of the plugin's error message.
func (w *world) plugin(in any, args ...string) ([]byte, error) {
	w.tb.Helper()
	text, err := json.Marshal(in)
	must(w.tb, err)
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "LANYARD_ROOT="+w.root)
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
		w.tb.Fatalf("%q: the error is %q, %v", args, out.String(), err)
	}
	return nil, errors.New(failed.Error)
}
