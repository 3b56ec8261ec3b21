//go:build !vm

package etcdstore_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/testenv"
)

// runsVar is the environment variable with the number of schedules that TestHosts runs, and seedVar
// that with the first one's seed.
const (
	runsVar = "LANYARD_LEASES_RUNS"
	seedVar = "LANYARD_LEASES_SEED"
)

const (
	hosts   = 5
	members = 3
	sharing = 2 // hosts with a share of two addresses for outages
)

// TestHosts runs hosts, as processes in namespaces of their own with clocks that differ, and a
// cluster of three members, while members are killed, cut off and paused, and hosts are cut off and
// paused for longer than their time to live. It checks that no address was held twice. One short
// schedule runs by default.
func TestHosts(t *testing.T) {
	t.Parallel()
	runs, length := 1, 12*time.Second
	if n, err := strconv.Atoi(os.Getenv(runsVar)); err == nil {
		runs, length = n, 30*time.Second
	}
	seed, _ := strconv.ParseUint(os.Getenv(seedVar), 10, 64)
	for i := range uint64(runs) {
		t.Run(fmt.Sprint("seed ", seed+i), func(t *testing.T) { runSchedule(t, seed+i, length) })
	}
}

// lan is the cluster and the hosts of one schedule.
type lan struct {
	t       *testing.T
	r       *rand.Rand
	members []*testenv.Etcd
	ports   []*testenv.Station // of members, then of hosts
	hosts   []*exec.Cmd
	outputs []*bytes.Buffer
}

func runSchedule(t *testing.T, seed uint64, length time.Duration) {
	l := &lan{t: t, r: rand.New(rand.NewPCG(seed, 0))}
	lab := testenv.NewLab(t, testenv.Config{})
	stations := map[string]*testenv.Station{}
	for i := range members {
		addr := fmt.Sprint("10.9.0.", i+1)
		stations[addr] = lab.AddGateway(0, addr+"/24")
		l.ports = append(l.ports, stations[addr])
	}
	l.members = testenv.StartEtcdCluster(t, stations)
	for i := range hosts {
		l.startHost(lab.AddGateway(0, fmt.Sprintf("10.9.0.%d/24", i+11)), i, seed, length)
	}
	faults := map[string]int{}
	for end := time.Now().Add(length); time.Now().Before(end); {
		<-time.After(time.Duration(l.r.IntN(1500)) * time.Millisecond)
		faults[l.fault()]++
	}
	var events []event
	for i, h := range l.hosts {
		if err := h.Wait(); err != nil {
			t.Errorf("host %d: %v", i, err)
		}
		for d := json.NewDecoder(l.outputs[i]); d.More(); {
			var e event
			if err := d.Decode(&e); err != nil {
				t.Fatal(err)
			}
			events = append(events, e)
		}
	}
	l.check(events, faults)
}

func (l *lan) startHost(s *testenv.Station, i int, seed uint64, length time.Duration) {
	l.t.Helper()
	j := job{Host: i, Seed: seed, For: length, Skew: time.Duration(l.r.IntN(7200)-3600) * time.Second}
	if i < sharing {
		first := contested.Ranges[0].Addr()
		for range 2 * i {
			first = first.Next()
		}
		j.Share = []netip.Prefix{netip.PrefixFrom(first, 31)}
	}
	for _, m := range l.members {
		j.Endpoints = append(j.Endpoints, m.Endpoint)
	}
	text, err := json.Marshal(j)
	if err != nil {
		l.t.Fatal(err)
	}
	cmd, out := exec.Command("/proc/self/exe"), &bytes.Buffer{}
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), asHost+"="+string(text)), out, os.Stderr
	if err := s.Start(cmd); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	l.ports, l.hosts, l.outputs = append(l.ports, s), append(l.hosts, cmd), append(l.outputs, out)
}

// fault causes a random fault, ends it after some time, and returns its name.
func (l *lan) fault() string {
	l.t.Helper()
	short := time.Duration(500+l.r.IntN(1500)) * time.Millisecond
	long := 4 * time.Second // longer than the time to live
	m, h := l.r.IntN(members), l.r.IntN(hosts)
	switch l.r.IntN(5) {
	case 0:
		l.members[m].Kill()
		<-time.After(short)
		l.members[m].Start()
		return "member killed"
	case 1:
		l.cutOff(l.ports[m], short)
		return "member cut off"
	case 2:
		l.members[m].Pause()
		<-time.After(short)
		l.members[m].Resume()
		return "member paused"
	case 3:
		l.cutOff(l.ports[members+h], long)
		return "host cut off"
	}
	l.signal(h, unix.SIGSTOP)
	<-time.After(long)
	l.signal(h, unix.SIGCONT)
	return "host paused"
}

func (l *lan) cutOff(s *testenv.Station, d time.Duration) {
	s.SetPort(false)
	<-time.After(d)
	s.SetPort(true)
}

func (l *lan) signal(host int, s os.Signal) {
	if err := l.hosts[host].Process.Signal(s); err != nil {
		l.t.Logf("host %d has ended before %s", host, s)
	}
}

// keep writes events to a file that outlasts the test, and returns its name.
func (l *lan) keep(events []event) string {
	l.t.Helper()
	f, err := os.CreateTemp("", "lanyard-events-*.json")
	if err == nil {
		err = errors.Join(json.NewEncoder(f).Encode(events), f.Close())
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return f.Name()
}

func (l *lan) check(events []event, faults map[string]int) {
	l.t.Helper()
	claims, pending, sessions := 0, 0, 0
	for _, e := range events {
		switch {
		case e.Pending:
			pending++
		case e.Kind == "claim":
			claims++
		case e.Kind == "session":
			sessions++
		}
	}
	began := time.Now()
	got := linearizable(events)
	l.t.Logf("%d claims, %d in shares, %d sessions of %d hosts, faults %v: %s, checked in %s", claims, pending, sessions,
		hosts, faults, got, time.Since(began).Round(time.Millisecond))
	if got != porcupine.Ok {
		l.t.Errorf("an address was held twice, or the check did not end: %s; all events are in %s", got, l.keep(events))
	}
	if claims < 100 || sessions < hosts {
		l.t.Errorf("only %d claims in %d sessions: nothing was tested", claims, sessions)
	}
}
