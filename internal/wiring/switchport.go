package wiring

import (
	"context"
	"path/filepath"
	"time"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/verify/lldp"
)

// Switches returns the directory with what was heard by LLDP.
func (p Paths) Switches() lldp.Memory { return lldp.Memory(filepath.Join(p.Run, "lldp")) }

// lldpdWait limits the wait for lldpd's answer, on a start that already has a silent VLAN.
const lldpdWait = time.Second

// switchPort returns what the switch at the other end of a parent's trunk says of the parent's VLAN:
// from lldpd, else what "lanyard lldp" or doctor heard last. It returns "" if nothing is known.
func (p Paths) switchPort(ctx context.Context, parent link.Parent) string {
	ctx, cancel := context.WithTimeout(ctx, lldpdWait)
	defer cancel()
	k, err := p.Switches().Ask(ctx, parent.Trunk)
	if err != nil {
		return ""
	}
	return k.Says(parent.Trunk, parent.Tags)
}
