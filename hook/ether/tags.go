package ether

import (
	"fmt"
	"slices"
	"strings"
)

// TPIDs of VLAN tags (IEEE 802.1Q-2018, table 9-1).
const (
	Dot1Q  uint16 = 0x8100 // customer tag, 802.1Q
	Dot1AD uint16 = 0x88a8 // service tag, the outer one of 802.1ad QinQ
)

// Tag is one VLAN tag: its kind (TPID) and its VLAN id, 1 to 4094.
type Tag struct {
	TPID uint16 `json:"tpid"`
	VID  uint16 `json:"vid"`
}

// String returns "VLAN 50", or "VLAN 50 by protocol 0x88a8" if it is not 802.1Q.
func (t Tag) String() string {
	if t.TPID != Dot1Q {
		return fmt.Sprintf("VLAN %d by protocol %#x", t.VID, t.TPID)
	}
	return fmt.Sprintf("VLAN %d", t.VID)
}

// Tags are the VLAN tags of a frame, outermost first. An empty list means untagged.
type Tags []Tag

// String returns the usual notation: "untagged", "VLAN 50", or "VLAN 100.200" for QinQ. The suffix
// "ad" marks an 802.1ad tag.
func (t Tags) String() string {
	if len(t) == 0 {
		return "untagged"
	}
	ids := make([]string, len(t))
	for i, tag := range t {
		ids[i] = fmt.Sprint(tag.VID)
		if tag.TPID == Dot1AD {
			ids[i] += "ad"
		}
	}
	return "VLAN " + strings.Join(ids, ".")
}

// Equal reports whether both carry the same tags in the same order.
func (t Tags) Equal(o Tags) bool { return slices.Equal(t, o) }
