package matrix

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// number returns a number from the environment, or otherwise if it is not set.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	must(t, err)
	return n
}

// loadHost is one of the hosts of a healthy LAN.
type loadHost struct {
	*testenv.Lab
	paths wiring.Paths
}

// TestNoFalseAlarm has four hosts with the same definition attach and end containers at the same
// time. Each host chooses the next address that is free according to its own leases, while another
// station fills the trunk with broadcasts. Every verdict must be ok, and no host may report a
// conflict with another. LANYARD_HEALTHY is the number of attaches. In the virtual machine the LAN
// is a VLAN.
func TestNoFalseAlarm(t *testing.T) {
	const batch = 40 // namespaces that exist at one time
	n := number(t, "LANYARD_HEALTHY", 40)
	vlan, parent, config := uint16(0), "eth9", testenv.Config{}
	if os.Getenv("LANYARD_VM") != "" {
		vlan, parent, config.VLANs = 50, "eth9.50", []uint16{50}
	}
	l := testenv.NewLab(t, config)
	l.AddGateway(vlan, "192.168.50.1/24", "fd50::1/64")
	hosts := []loadHost{newLoadHost(t, l), newLoadHost(t, l.AddHost()), newLoadHost(t, l.AddHost()),
		newLoadHost(t, l.AddHost())}
	for _, h := range hosts {
		must(t, inHost(h.Lab, h.paths, func(ctx context.Context, l *wiring.Lanyard) error {
			_, err := l.CreateNetwork(ctx, &network.Definition{
				Name: "web", ID: network.NewID(), Driver: network.DriverMacvlan, Parent: parent, Mode: network.ModeBridge,
				Subnets: []network.Subnet{
					{Subnet: netip.MustParsePrefix("192.168.50.0/24"), Gateway: netip.MustParseAddr("192.168.50.1")},
					{Subnet: netip.MustParsePrefix("fd50::/64"), Gateway: netip.MustParseAddr("fd50::1")},
				},
			})
			return err
		}))
	}
	stop := sendBroadcasts(t, l.AddGateway(vlan))
	defer stop()

	alarms := 0
	for done := 0; done < n; done += batch {
		for _, alarm := range attachAll(t, hosts, min(batch, n-done)) {
			alarms++
			t.Errorf("after %d attaches: %s", done, alarm)
		}
	}
	for _, h := range hosts {
		for _, alarm := range h.events(t) {
			alarms++
			t.Error(alarm)
		}
	}
	if dir := os.Getenv("LANYARD_OUT"); dir != "" {
		text := fmt.Sprintf("## Linux %s: %d false alarms in %d attaches by four hosts on a healthy, busy VLAN\n",
			os.Getenv("LANYARD_VM"), alarms, n)
		must(t, os.WriteFile(filepath.Join(dir, "healthy-"+os.Getenv("LANYARD_VM")+".md"), []byte(text), 0o644))
	}
	for _, h := range hosts {
		must(t, inHost(h.Lab, h.paths, func(ctx context.Context,
			l *wiring.Lanyard) error {
			return l.RemoveNetwork(ctx, "web")
		}))
	}
}

func newLoadHost(t *testing.T, l *testenv.Lab) loadHost {
	t.Helper()
	h := loadHost{l, wiring.PathsUnder(filepath.Join(t.TempDir(), "root"))}
	t.Cleanup(func() { must(t, os.RemoveAll(h.paths.BPF)) })
	must(t, os.MkdirAll(filepath.Dir(h.paths.HostID), 0o755))
	must(t, os.WriteFile(h.paths.HostID, fmt.Appendf(nil, "%032x\n", rand.Uint64()|1), 0o600))
	return h
}

// events returns the events that the host's trunk has recorded.
func (h loadHost) events(t *testing.T) (alarms []string) {
	t.Helper()
	must(t, inHost(h.Lab, h.paths, func(ctx context.Context, l *wiring.Lanyard) error {
		list, err := l.History(ctx)
		for _, e := range list {
			alarms = append(alarms, fmt.Sprintf("%s: %s", h.Host.Name, e))
		}
		return err
	}))
	return alarms
}

// attachAll attaches and ends n containers, one at a time on each host, and returns the verdicts
// that are not ok.
func attachAll(t *testing.T, hosts []loadHost, n int) (alarms []string) {
	t.Helper()
	containers := make([]*testenv.Container, n)
	for i := range containers {
		containers[i] = testenv.NewContainer(t)
	}
	reports := make(chan string, n)
	var wg sync.WaitGroup
	for w, h := range hosts {
		wg.Go(func() {
			for i := w; i < n; i += len(hosts) {
				if alarm := h.attachOnce(fmt.Sprintf("c%d", i), containers[i]); alarm != "" {
					reports <- alarm
				}
				containers[i].End(t)
			}
		})
	}
	wg.Wait()
	close(reports)
	for a := range reports {
		alarms = append(alarms, a)
	}
	return alarms
}

func inHost(l *testenv.Lab, paths wiring.Paths, f func(context.Context, *wiring.Lanyard) error) error {
	return l.Host.Do(func() error {
		parts, err := wiring.Open(paths)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		return errors.Join(f(ctx, parts), parts.Close())
	})
}

// attachOnce attaches a container, ends it, and returns a verdict that is not ok, or an error.
func (h loadHost) attachOnce(id string, container *testenv.Container) (alarm string) {
	r := hook.Request{Container: id, Name: id, Pid: container.Pid, Wants: []hook.Want{{Network: "web"}}}
	err := inHost(h.Lab, h.paths, func(ctx context.Context, l *wiring.Lanyard) error {
		got, err := l.Attach(ctx, r)
		if err != nil {
			return err
		}
		for _, v := range got[0].Verdicts {
			if v.Code != verify.OK {
				alarm = fmt.Sprintf("%s: %s: %s", h.Host.Name, v.Code, v.Text)
			}
		}
		return errors.Join(container.Kill(), l.Detach(ctx, id))
	})
	if err != nil {
		alarm = fmt.Sprintf("%s: %v", h.Host.Name, err)
	}
	return alarm
}

// sendBroadcasts has a station announce an address of its own in an endless loop. The address is not
// in the subnet: a host that chose it would rightly report a conflict.
func sendBroadcasts(t testing.TB, s *testenv.Station) (stop func()) {
	t.Helper()
	r := s.Respond(func(testenv.Asked) []testenv.Reply { return nil })
	frame, err := arp.Announce(s.MAC, netip.MustParseAddr("192.168.51.200"))
	must(t, err)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				if r.Send(frame) != nil {
					return
				}
			}
		}
	}()
	return func() {
		close(done)
		<-ended
		r.Stop()
	}
}
