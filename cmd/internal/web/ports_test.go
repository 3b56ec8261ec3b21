package web

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify/lldp"
)

// TestPort checks that the page has the switch port that was heard.
func TestPort(t *testing.T) {
	w := lab{Lab: hooklab.New(t, testenv.Config{})}
	w.Define("web", w.Trunk, nil, "192.168.50.0/24")
	defer w.SpeakLLDP("configure system hostname sw-a", "configure lldp portidsubtype local Gi1/0/7")()
	if err := w.Host.Do(func() error {
		trunk, err := net.InterfaceByName(w.Trunk)
		if err != nil {
			return err
		}
		n, err := lldp.Listen(t.Context(), trunk.Index, lldp.Interval)
		if err == nil && n == nil {
			err = errors.New("no frame came")
		}
		if err != nil {
			return err
		}
		return wiring.PathsUnder(w.Root).Switches().Save(w.Trunk, *n)
	}); err != nil {
		t.Fatal(err)
	}
	w.service = w.StartService()
	testenv.Eventually(t, "the switch port", func() error {
		if page := w.get(t, "/map.json"); !strings.Contains(page, `port \"Gi1/0/7\" of switch \"sw-a\" (heard `) {
			return errors.New(page)
		}
		return nil
	})
}
