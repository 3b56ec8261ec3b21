//go:build vm

package matrix

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// A flaw is a fault that others can be made beside. Two of one spot exclude each
// other: they would be made with the same switch or filter.
type flaw struct {
	name string
	spot string
	only func(cell) bool
	make func(*bench, cell) (undo func())
}

// byName finds a fault of the fixed matrix.
func byName(name string) *fault {
	i := slices.IndexFunc(faults, func(f *fault) bool { return f.name == name })
	return faults[i]
}

// flaws take their making from the fixed matrix, so that both mean the same.
var flaws = func() (all []flaw) {
	for _, x := range []struct{ spot, flaw, fault string }{
		{"carrier", "down", "trunk's port down"},
		{"host", "drop", "a filter on the parent drops frames"},
		{"host", "untagged", "a filter sends frames out without a tag"},
		{"host", "other-vlan", "a filter sends frames out of another VLAN"},
		{"host", "tag-more", "a filter pushes a tag too many"},
		{"vlan", "off-trunk", "VLAN not on the trunk, another alive"},
		{"in", "lost-out", "nothing leaves the host's port, VLAN alive"},
		{"in", "one-mac-in", "port security: only the parent's MAC in"},
		{"out", "lost-in", "nothing reaches the host"},
		{"out", "one-mac-out", "hypervisor: only the parent's MAC out"},
		{"out", "retag", "switch changes the tag of answers"},
		{"gateway", "no-address", "gateway has no address, VLAN alive"},
		{"gateway", "moved", "gateway's port in another VLAN"},
		{"peer", "rival", "another host has the container's address"},
		{"peer", "second-gateway", "two hosts have the gateway's address"},
		{"peer", "host-rival", "a container of another host has the address"},
		{"peer", "twin", "a container of another host has the address and the MAC"},
	} {
		f := byName(x.fault)
		all = append(all, flaw{x.flaw, x.spot, f.only, f.make})
	}
	return append(all, flaw{"slow", "gateway", nil, nil}) // made by draw, which knows how slow
}()

// A mix is one random lab: what is wrong with it, and what the network is like
// besides.
type mix struct {
	cell
	flaws []flaw
	delay time.Duration // of the gateway's answers
	alive bool          // somebody speaks on the VLAN before
	noise int           // frames of others before, on another VLAN
	hosts int           // others on the LAN with a container each, which are well
}

func draw(r *rand.Rand, b *bench) mix {
	m := mix{cell: cell{
		place: b.places[r.IntN(len(b.places))], family: families[r.IntN(len(families))],
		mode: network.ModeBridge, legacy: hasTCX() && r.IntN(2) == 0,
	}}
	if r.IntN(4) == 0 {
		m.mode = []network.Mode{network.ModePrivate, network.ModeVEPA}[r.IntN(2)]
	}
	m.alive, m.noise = r.IntN(2) == 0, r.IntN(4)
	if m.alive { // with a container of theirs it is
		m.hosts = r.IntN(3)
	}
	var spots []string
	for range []int{0, 0, 1, 1, 1, 1, 2, 2, 3, 3}[r.IntN(10)] {
		f := flaws[r.IntN(len(flaws))]
		if slices.Contains(spots, f.spot) || f.only != nil && !f.only(m.cell) {
			continue
		}
		spots = append(spots, f.spot)
		if f.name == "slow" {
			m.delay = time.Duration(50+r.IntN(200)) * time.Millisecond
		}
		m.flaws = append(m.flaws, f)
	}
	m.fault = &fault{name: m.name(), fresh: true, make: m.make, speak: m.speak, deadline: 600 * time.Millisecond}
	if m.has("twin") {
		m.fault.mac = twin
	}
	return m
}

func (m mix) name() string {
	if len(m.flaws) == 0 {
		return "none"
	}
	names := make([]string, len(m.flaws))
	for i, f := range m.flaws {
		names[i] = f.name
	}
	return strings.Join(names, "+")
}

func (m mix) make(b *bench, c cell) (undo func()) {
	var undos []func()
	for i, other := range b.others[:m.hosts] {
		if i == 0 && m.has("host-rival", "twin") {
			continue // it has a container
		}
		a := c.family.own.AsSlice()
		a[len(a)-1] += byte(10 + i)
		addr, _ := netip.AddrFromSlice(a)
		undos = append(undos, other.attach(b, c, network.VerifyOff, hook.Want{Network: "web", Addrs: []netip.Addr{addr}}))
	}
	for _, f := range m.flaws {
		make := f.make
		if f.name == "slow" {
			make = gatewayBy(slow(m.delay))
		}
		undos = append(undos, make(b, c))
	}
	return func() {
		for _, u := range slices.Backward(undos) {
			u()
		}
	}
}

func (m mix) speak(b *bench, c cell) {
	for range m.noise {
		b.say(b.chatter)
	}
	if m.alive {
		b.say(c.place.peer)
	}
}

func (m mix) has(names ...string) bool {
	return slices.ContainsFunc(m.flaws, func(f flaw) bool { return slices.Contains(names, f.name) })
}

// truth is the dominant fault as package verify defines it: the first line of its
// table of which there is a sign at all. A gateway that is not there cannot answer
// on a wrong VLAN; a rival that the question does not reach stays unknown.
func (m mix) truth() verify.Code {
	switch {
	case m.has("down"):
		return verify.ParentDown
	case m.has("drop"):
		return verify.NotSent
	case m.has("untagged"):
		return verify.Untagged
	case m.has("other-vlan"):
		return verify.WrongVLAN
	case m.has("tag-more"):
		return verify.UnexpectedTag
	}
	carried := !m.has("off-trunk")
	reaches := carried && !m.has("lost-out", "one-mac-in")
	// What goes to all comes in where what goes to one MAC does not.
	toOne, toAll := !m.has("lost-in", "one-mac-out"), !m.has("lost-in")
	comes := toOne || toAll && m.family.name == "IPv6"
	rightly := !m.has("retag")
	// Who has the address is asked from the parent's MAC, and answered to that.
	if carried && rightly && !m.has("lost-out", "lost-in") {
		switch {
		case m.has("rival", "host-rival"):
			return verify.AddressConflict
		case m.has("twin"):
			return verify.DuplicateMAC
		}
	}
	answers := m.has("second-gateway") || !m.has("no-address", "moved")
	if reaches && answers && comes {
		switch {
		case !rightly:
			return verify.ReplyWrongVLAN
		case !toOne:
			return verify.MACFiltered
		case m.has("second-gateway") && !m.has("no-address", "moved", "slow"):
			// Of a slow one the window does not wait for, only the other is known.
			return verify.GatewayConflict
		}
		return verify.OK
	}
	if carried && answers && !m.has("lost-out", "lost-in") && rightly {
		return verify.MACFiltered
	}
	return m.silence(carried && !m.has("lost-out"), answers, toAll, rightly)
}

// silence tells by what else came in on the VLAN with its tag: who spoke before, and
// answers to the parent's MAC.
func (m mix) silence(parentReaches, answers, toAll, rightly bool) verify.Code {
	if m.alive && !m.has("off-trunk", "lost-in", "retag") || parentReaches && answers && toAll && rightly {
		return verify.GatewaySilent
	}
	return verify.VLANSilent
}

// TestRandom draws labs by a seed: LANYARD_RANDOM is how many, LANYARD_SEED which. A
// lab depends on the seed and on its number alone. The part that "make test" has time
// for is small, and always the same.
func TestRandom(t *testing.T) {
	n, seed := number(t, "LANYARD_RANDOM", 12), number(t, "LANYARD_SEED", 1)
	tally := tally{confusion: map[verify.Code]map[verify.Code]int{}}
	var next atomic.Int32
	sideBySide(t, func(t *testing.T, b *bench) {
		for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
			m := draw(rand.New(rand.NewPCG(uint64(seed), uint64(i))), b)
			truth := m.truth()
			o, again, err := b.steadily(m.cell, func(o outcome) bool { return o.verdict.Code == truth })
			must(t, err)
			if !tally.add(truth, o.verdict.Code, again) {
				t.Logf("seed %d, lab %d: %s, delay %v, alive %v, noise %d, hosts %d: verdict %s (%s), want %s", seed, i, m.cell, m.delay, m.alive, m.noise, m.hosts+1, o.verdict.Code, o.verdict.Text, truth)
			}
		}
	})
	result := fmt.Sprintf("%d of %d random labs right, seed %d; the machine stood still in %d", tally.right, n, seed, tally.again)
	t.Log(result)
	if tally.right*100 < n*99 {
		t.Error("want 99 %")
	}
	if dir := os.Getenv("LANYARD_OUT"); dir != "" {
		text := fmt.Sprintf("## Linux %s: %s\n\n%s", os.Getenv("LANYARD_VM"), result, confused(tally.confusion))
		must(t, os.WriteFile(filepath.Join(dir, "random-"+os.Getenv("LANYARD_VM")+".md"), []byte(text), 0o644))
	}
}

// A tally counts what labs came to.
type tally struct {
	mu           sync.Mutex
	confusion    map[verify.Code]map[verify.Code]int // by truth, by verdict
	right, again int
}

func (a *tally) add(truth, got verify.Code, again int) (right bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.confusion[truth] == nil {
		a.confusion[truth] = map[verify.Code]int{}
	}
	a.confusion[truth][got]++
	a.again += again
	if truth == got {
		a.right++
	}
	return truth == got
}

// confused is the matrix of true fault against verdict.
func confused(confusion map[verify.Code]map[verify.Code]int) string {
	var codes []verify.Code
	for truth, row := range confusion {
		codes = append(codes, truth)
		for got := range row {
			codes = append(codes, got)
		}
	}
	slices.Sort(codes)
	codes = slices.Compact(codes)
	var s strings.Builder
	s.WriteString("| true \\ verdict |")
	for _, c := range codes {
		fmt.Fprintf(&s, " %s |", c)
	}
	s.WriteString("\n|---|" + strings.Repeat("---|", len(codes)) + "\n")
	for _, truth := range codes {
		if confusion[truth] == nil {
			continue
		}
		fmt.Fprintf(&s, "| %s |", truth)
		for _, got := range codes {
			cell := ""
			if n := confusion[truth][got]; n > 0 {
				cell = strconv.Itoa(n)
			}
			fmt.Fprintf(&s, " %s |", cell)
		}
		s.WriteString("\n")
	}
	return s.String()
}
