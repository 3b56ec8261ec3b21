package verify

import (
	"fmt"
	"slices"
	"strings"
)

// TPIDs that a VLAN tag begins with (IEEE 802.1Q-2018, table 9-1).
const (
	Dot1Q  uint16 = 0x8100 // customer tag, 802.1Q
	Dot1AD uint16 = 0x88a8 // service tag, the outer one of 802.1ad QinQ
)

// Tag is one VLAN tag: which kind and which VLAN, 1 to 4094.
type Tag struct {
	TPID uint16 `json:"tpid"`
	VID  uint16 `json:"vid"`
}

// Tags are the VLAN tags of a frame, the outermost first. Empty means
// untagged.
type Tags []Tag

// String gives the tags as people write them: "untagged", "VLAN 50",
// "VLAN 100.200" for QinQ. An 802.1ad tag of its own is marked.
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
