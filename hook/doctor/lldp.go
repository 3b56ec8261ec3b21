package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/verify/lldp"
)

// Heard is what is known of the switch at the other end of a trunk.
type Heard struct {
	Trunk     string          `json:"trunk"`
	Neighbour *lldp.Neighbour `json:"neighbour"`   // null if nothing was heard
	From      string          `json:"from"`        // "lldpd" or "frame"; "" if there was no listen
	At        time.Time       `json:"at,omitzero"` // of a frame that was heard earlier
	bridge    bool            // the trunk is a bridge
}

// Hear returns what lldpd knows of the switch at the other end of a trunk. Without lldpd, it returns
// what a frame says that arrives within wait; with wait 0, the last frame with a valid TTL. It keeps
// frames for verdicts. It does not listen on a bridge: frames to LLDP's addresses are received by the
// bridge's ports alone (br_handle_frame).
func Hear(
	ctx context.Context, host *link.Host, p link.Parent, wait time.Duration, keep lldp.Memory,
) (h Heard, err error) {
	h.Trunk = p.Trunk
	if h.bridge, err = host.IsBridge(p.TrunkIndex); err != nil {
		return h, err
	}
	known, err := keep.Ask(ctx, p.Trunk)
	if err != nil || known.From == "lldpd" || wait == 0 && known.Valid() {
		h.Neighbour, h.From, h.At = known.Neighbour, known.From, known.At
		return h, err
	}
	if wait == 0 || h.bridge {
		return h, nil
	}
	h.From = "frame"
	err = host.Do(func() (err error) {
		h.Neighbour, err = lldp.Listen(ctx, p.TrunkIndex, wait)
		return err
	})
	if err == nil && h.Neighbour != nil {
		err = keep.Save(p.Trunk, *h.Neighbour)
	}
	return h, err
}

// Silent returns what it means that nothing was heard. flag is the command's flag for wait.
func (h Heard) Silent(wait time.Duration, flag string) string {
	switch {
	case h.bridge:
		return fmt.Sprintf("%q is a bridge, which receives no LLDP frames: name its port, \"lanyard lldp PORT\"", h.Trunk)
	case h.From == "lldpd":
		return fmt.Sprintf("lldpd has heard nothing on %q: the switch does not speak LLDP, or its port has it off", h.Trunk)
	case h.From == "":
		return fmt.Sprintf("not known: lldpd does not run; listen with %s 35s", flag)
	case wait > lldp.Interval:
		return fmt.Sprintf("no LLDP frame came on %q within %v: the switch does not speak LLDP, or its port has it off",
			h.Trunk, wait)
	}
	return fmt.Sprintf("no LLDP frame came on %q within %v; switches send every %v", h.Trunk, wait, lldp.Interval)
}

// neighbour reports the switch at the other end of p's trunk, and returns it.
func (d *Doctor) neighbour(ctx context.Context, s subject, p link.Parent) *lldp.Neighbour {
	h, err := Hear(ctx, d.Host, p, d.Listen, d.Switches)
	if err != nil {
		s.add(Warning, "switch", "%v", err)
		return nil
	}
	n := h.Neighbour
	if n == nil {
		s.add(OK, "switch", "%s", h.Silent(d.Listen, "--lldp"))
		return nil
	}
	text := n.String()
	if n.PVID != 0 {
		text += fmt.Sprintf(", untagged frames in VLAN %d", n.PVID)
	}
	if len(n.VLANs) > 0 {
		text += ", " + n.Named()
	}
	if !h.At.IsZero() {
		text += fmt.Sprintf(" (heard %v ago)", time.Since(h.At).Round(time.Second))
	}
	s.add(OK, "switch", "%s", text)
	return n
}

// checkPort compares the VLANs of the switch's port with the parent's.
func checkPort(s subject, n lldp.Neighbour, p link.Parent) {
	if text := n.Differs(p.Tags); text != "" {
		s.add(Warning, "switch", "%s", text)
	}
}
