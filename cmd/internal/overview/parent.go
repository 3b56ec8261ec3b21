package overview

import (
	"errors"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
)

// Parent is the current state of a network's parent.
type Parent struct {
	Name    string `json:"name"`
	State   string `json:"state"`         // up, down, missing or refused
	Why     string `json:"why,omitempty"` // why it is not up
	Managed bool   `json:"managed"`       // a VLAN sub-interface or dummy that Lanyard created
	Trunk   string `json:"trunk,omitempty"`
	VLAN    string `json:"vlan,omitempty"` // "50"; "100.200" for QinQ; "" for none
	MTU     int    `json:"mtu,omitempty"`
	MAC     string `json:"mac,omitempty"`
}

// ParentOf returns the state of a network's parent and changes nothing. Errors are
// in the state.
func ParentOf(l *wiring.Lanyard, def *network.Definition) Parent {
	p, err := l.Parent(def)
	if err != nil {
		state := "refused"
		if errors.Is(err, link.ErrNoLink) {
			state = "missing"
		}
		return Parent{Name: def.Parent, State: state, Why: err.Error()}
	}
	seen := Parent{
		Name: def.Parent, State: "up", Managed: p.Ours, Trunk: p.Trunk,
		VLAN: VLAN(p.Tags), MTU: p.MTU, MAC: p.MAC.String(),
	}
	why, err := l.Host.Down(p)
	if err != nil {
		why = err.Error()
	}
	if why != "" {
		seen.State, seen.Why = "down", why
	}
	return seen
}
