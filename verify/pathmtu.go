package verify

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// Ends are the two stations of an echo request.
type Ends struct {
	Source, Destination ether.MAC
	From, To            netip.Addr // of one family
}

// Pong is the answer to an echo request.
type Pong struct {
	Size int // of the answer's IP packet, or of its first fragment, in bytes; 0: no answer came
	Took time.Duration
}

// Pinger sends echo requests that must not be fragmented to one station.
type Pinger interface {
	// Ping sends one request, as an IP packet of size bytes, and waits up to wait for its answer. No
	// answer is not an error.
	Ping(ctx context.Context, size int, wait time.Duration) (Pong, error)
	Close() error
}

// PathMTU says which sizes of packets reach another station and come back.
type PathMTU struct {
	To      netip.Addr `json:"to"`
	Sibling string     `json:"sibling,omitempty"` // the container of this host that has To; "": a gateway
	// Size is the size of the largest packet that the interface sends, its MTU, in bytes.
	Size int `json:"size"`
	// Passes is the size of the largest packet that was answered; 0 if it is not known.
	Passes int `json:"passes"`
	// Fragment is the size of the first fragment of the answer to the largest packet; 0 if it came whole.
	Fragment int `json:"fragment,omitempty"`
	// Lossy reports that packets of any size are lost, so that Passes is not known.
	Lossy bool   `json:"lossy,omitempty"`
	Text  string `json:"text"`
}

// Short reports whether packets that the interface sends are too large for the path. A station that
// sends smaller ones itself is no fault: TCP's MSS and path MTU discovery take care of it.
func (p PathMTU) Short() bool { return p.Passes != 0 && p.Passes < p.Size }

// Times of a measurement. The first answer may wait for the other station's own ARP request.
const (
	smallPing = 128 // bytes: fits any path, but a link may have a smaller MTU
	firstPing = time.Second / 2
	minPing   = 60 * time.Millisecond
	maxPing   = time.Second
	fewTries  = 2
	pingTries = 3
)

// MeasureMTU finds the largest packet that reaches a station and comes back, up to size bytes. It
// sends at most about fifty packets, one after the other.
func MeasureMTU(ctx context.Context, p Pinger, size int) (PathMTU, error) {
	m := &measurement{ctx: ctx, pinger: p, wait: firstPing}
	least := min(smallPing, size)
	small := m.try(least, pingTries)
	if m.err != nil || small.Size == 0 {
		return PathMTU{Size: size}, m.err
	}
	m.wait = min(max(minPing, 4*small.Took), maxPing)
	if full := m.try(size, pingTries); full.Size != 0 {
		path := PathMTU{Size: size, Passes: size}
		if full.Size < size {
			path.Fragment = full.Size
		}
		return path, m.err
	}
	passes, lost := least, size
	for lost-passes > 1 && m.err == nil {
		if at := (passes + lost) / 2; m.try(at, fewTries).Size != 0 {
			passes = at
		} else {
			lost = at
		}
	}
	// A size that was lost by chance ends the search too early.
	if m.err == nil && (m.try(passes, pingTries).Size == 0 || m.try(lost, pingTries).Size != 0) {
		return PathMTU{Size: size, Lossy: true}, m.err
	}
	return PathMTU{Size: size, Passes: passes}, m.err
}

// measurement is one run of [MeasureMTU]. After an error it sends nothing.
type measurement struct {
	ctx    context.Context
	pinger Pinger
	wait   time.Duration
	err    error
}

// try sends up to tries requests of one size until one is answered.
func (m *measurement) try(size, tries int) (pong Pong) {
	for n := 0; n < tries && pong.Size == 0 && m.err == nil; n++ {
		pong, m.err = m.pinger.Ping(m.ctx, size, m.wait)
	}
	return pong
}

// ethernetHeader and tagLength are lengths in bytes.
const (
	ethernetHeader = 14
	tagLength      = 4
)

// Describe fills in Text. tags are those of the frames, and trunk is the link that they leave by.
func (p PathMTU) Describe(tags ether.Tags, trunk string) PathMTU {
	overhead := ethernetHeader + len(tags)*tagLength
	who, remedy := "gateway "+p.To.String(), fmt.Sprintf("raise the MTU of the switches between %q and the gateway", trunk)
	if p.Sibling != "" {
		who, remedy = fmt.Sprintf("%s of container %q", p.To, p.Sibling), "give both containers the same MTU"
	}
	switch {
	case p.Lossy:
		p.Text = fmt.Sprintf("MTU not known: packets of all sizes to %s are lost at times", who)
	case p.Passes == 0:
		p.Text = fmt.Sprintf("MTU not known: %s answers no echo request, which a firewall may drop", who)
	case p.Sibling != "" && p.Passes < p.Size: // its frames have no tag, and do not leave the host
		p.Text = fmt.Sprintf("packets over %d bytes to %s are lost, up to the MTU of %d: %s", p.Passes, who, p.Size, remedy)
	case p.Passes < p.Size:
		p.Text = fmt.Sprintf("packets over %d bytes to %s are lost, up to the MTU of %d (frames over %d of %d bytes, %s): "+
			"%s, or recreate the network with --mtu %d",
			p.Passes, who, p.Size, p.Passes+overhead, p.Size+overhead, tags, remedy, p.Passes)
	case p.Fragment != 0:
		p.Text = fmt.Sprintf("packets of %d bytes reach %s, which sends smaller ones, of %d bytes: its own MTU differs",
			p.Size, who, p.Fragment)
	case p.Sibling != "":
		p.Text = fmt.Sprintf("packets of %d bytes reach %s", p.Size, who)
	default:
		p.Text = fmt.Sprintf("packets of %d bytes reach %s (frames of %d bytes, %s)", p.Size, who, p.Size+overhead, tags)
	}
	return p
}
