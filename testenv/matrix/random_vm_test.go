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
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// A combinableFault is a fault that can be combined with others. Faults of one group exclude each
// other, because they are made with the same switch or filter.
type combinableFault struct {
	name  string
	group string
	only  func(cell) bool
	make  func(*bench, cell) (undo func())
}

// byName returns a fault of the fixed matrix.
func byName(name string) *fault {
	i := slices.IndexFunc(faults, func(f *fault) bool { return f.name == name })
	return faults[i]
}

// combinableFaults uses the functions of the fixed matrix, so that a fault means the same in both.
var combinableFaults = func() (all []combinableFault) {
	for _, x := range []struct{ group, name, fault string }{
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
		{"peer", "claimant", "another host has the container's address"},
		{"peer", "second-gateway", "two hosts have the gateway's address"},
		{"peer", "host-claimant", "a container of another host has the address"},
		{"peer", "duplicate-mac", "a container of another host has the address and the MAC"},
	} {
		f := byName(x.fault)
		all = append(all, combinableFault{x.name, x.group, f.only, f.make})
	}
	return append(all, combinableFault{"slow", "gateway", nil, nil}) // draw chooses the delay
}()

// A randomLab is one random lab: its faults, and the other properties of the network.
type randomLab struct {
	cell
	flaws       []combinableFault
	delay       time.Duration // delay of the gateway's answers
	vlanAlive   bool          // a station sends a frame on the VLAN before the attach
	noiseFrames int           // frames before the attach, on another VLAN
	hosts       int           // other hosts on the LAN, with one healthy container each
}

func draw(r *rand.Rand, b *bench) randomLab {
	m := randomLab{cell: cell{
		segment: b.segments[r.IntN(len(b.segments))], family: families[r.IntN(len(families))],
		mode: network.ModeBridge, legacy: hasTCX() && r.IntN(2) == 0,
	}}
	if r.IntN(4) == 0 {
		m.mode = []network.Mode{network.ModePrivate, network.ModeVEPA}[r.IntN(2)]
	}
	m.vlanAlive, m.noiseFrames = r.IntN(2) == 0, r.IntN(4)
	if m.vlanAlive { // the containers of other hosts make it alive
		m.hosts = r.IntN(3)
	}
	var groups []string
	for range []int{0, 0, 1, 1, 1, 1, 2, 2, 3, 3}[r.IntN(10)] {
		f := combinableFaults[r.IntN(len(combinableFaults))]
		if slices.Contains(groups, f.group) || f.only != nil && !f.only(m.cell) {
			continue
		}
		groups = append(groups, f.group)
		if f.name == "slow" {
			m.delay = time.Duration(50+r.IntN(200)) * time.Millisecond
		}
		m.flaws = append(m.flaws, f)
	}
	var mac ether.MAC
	if m.has("duplicate-mac") {
		mac = duplicateMAC
		m.flaws = slices.DeleteFunc(m.flaws, hidesDuplicate)
	}
	m.fault = &fault{
		name: m.name(), newNetwork: true, mac: mac, make: m.make, announce: m.speak, deadline: 600 * time.Millisecond,
	}
	return m
}

// hidesDuplicate reports whether a flaw keeps the conflict question or its answer from another station
// with the same MAC. Whether a frame that the station sends unasked shows it then depends on the time
// of that frame, so that a lab with both has no certain verdict.
func hidesDuplicate(f combinableFault) bool {
	return !slices.Contains([]string{"peer", "gateway"}, f.group)
}

func (m randomLab) name() string {
	if len(m.flaws) == 0 {
		return "none"
	}
	names := make([]string, len(m.flaws))
	for i, f := range m.flaws {
		names[i] = f.name
	}
	return strings.Join(names, "+")
}

func (m randomLab) make(b *bench, c cell) (undo func()) {
	var undos []func()
	for i, other := range b.otherHosts[:m.hosts] {
		if i == 0 && m.has("host-claimant", "duplicate-mac") {
			continue // this host has a container already
		}
		a := c.family.own.AsSlice()
		a[len(a)-1] += byte(10 + i)
		addr, _ := netip.AddrFromSlice(a)
		undos = append(undos, other.attach(b, c, verify.Off, hook.Want{Network: "web", Addrs: []netip.Addr{addr}}))
	}
	for _, f := range m.flaws {
		make := f.make
		if f.name == "slow" {
			make = gatewayBy(answerAfter(m.delay))
		}
		undos = append(undos, make(b, c))
	}
	return func() {
		for _, u := range slices.Backward(undos) {
			u()
		}
	}
}

func (m randomLab) speak(b *bench, c cell) {
	for range m.noiseFrames {
		b.announce(b.otherVLANStation)
	}
	if m.vlanAlive {
		b.announce(c.segment.peer)
	}
}

func (m randomLab) has(names ...string) bool {
	return slices.ContainsFunc(m.flaws, func(f combinableFault) bool { return slices.Contains(names, f.name) })
}

// dominantFault returns the dominant fault as package verify defines it: the first line of its
// table of which there is a sign at all. A gateway that is absent cannot answer on a wrong VLAN; a
// claimant that the question does not reach stays unknown.
func (m randomLab) dominantFault() verify.Code {
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
	// Frames to all nodes may arrive when unicast frames do not.
	toOne, toAll := !m.has("lost-in", "one-mac-out"), !m.has("lost-in")
	comes := toOne || toAll && m.family.name == "IPv6"
	rightly := !m.has("retag")
	// The question for the address's holder is sent from the parent's MAC, and answered to it.
	if carried && rightly && !m.has("lost-out", "lost-in") {
		switch {
		case m.has("claimant", "host-claimant"):
			return verify.AddressConflict
		case m.has("duplicate-mac"):
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
			// The window does not wait for a slow one: then only the other is known.
			return verify.GatewayConflict
		}
		return verify.OK
	}
	if carried && answers && !m.has("lost-out", "lost-in") && rightly {
		return verify.MACFiltered
	}
	return m.silence(carried && !m.has("lost-out"), answers, toAll, rightly)
}

// silence returns the code for a silent gateway: it depends on other frames that arrived on the
// VLAN with its tag, from a station that sent before, or as answers to the parent's MAC.
func (m randomLab) silence(parentReaches, answers, toAll, rightly bool) verify.Code {
	if m.vlanAlive && !m.has("off-trunk", "lost-in", "retag") || parentReaches && answers && toAll && rightly {
		return verify.GatewaySilent
	}
	return verify.VLANSilent
}

// TestRandom draws labs from a seed: LANYARD_RANDOM is their number, LANYARD_SEED the seed. A lab
// depends only on the seed and on its number. The part that "make test" has time for is small, and
// always the same.
func TestRandom(t *testing.T) {
	testenv.OnOneKernel(t, "6.12")
	n, seed := number(t, "LANYARD_RANDOM", 12), number(t, "LANYARD_SEED", 1)
	tally := tally{confusion: map[verify.Code]map[verify.Code]int{}}
	var next atomic.Int32
	runParallel(t, func(t *testing.T, b *bench) {
		for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
			m := draw(rand.New(rand.NewPCG(uint64(seed), uint64(i))), b)
			truth := m.dominantFault()
			o, again, err := b.attachRetryingStalls(m.cell, func(o outcome) bool { return o.verdict.Code == truth })
			must(t, err)
			if !tally.add(truth, o.verdict.Code, again) {
				t.Logf("seed %d, lab %d: %s, delay %v, alive %v, noise %d, hosts %d: verdict %s (%s), want %s", seed, i, m.cell,
					m.delay, m.vlanAlive, m.noiseFrames, m.hosts+1, o.verdict.Code, o.verdict.Text, truth)
			}
		}
	})
	result := fmt.Sprintf("%d of %d random labs right, seed %d; the machine stalled in %d", tally.right, n, seed,
		tally.again)
	t.Log(result)
	if tally.right*100 < n*99 {
		t.Error("want 99 %")
	}
	if dir := os.Getenv("LANYARD_OUT"); dir != "" {
		text := fmt.Sprintf("## Linux %s: %s\n\n%s", os.Getenv("LANYARD_VM"), result, confusionTable(tally.confusion))
		must(t, os.WriteFile(filepath.Join(dir, "random-"+os.Getenv("LANYARD_VM")+".md"), []byte(text), 0o644))
	}
}

// A tally counts the verdicts of the labs.
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

// confusionTable returns a Markdown table of true faults against verdicts.
func confusionTable(confusion map[verify.Code]map[verify.Code]int) string {
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
