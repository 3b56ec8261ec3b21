package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// facts are what the host knows of a link that bears on whether it can carry networks.
type facts struct {
	name       string
	mtu        int
	driver     string // of a network card: "virtio_net"; "" if unknown
	bondMode   string // "" if the link is not a bond
	vrf        string // the VRF that the link belongs to, or ""
	wireless   bool
	vlanFilter bool   // the card passes only VLANs that have a sub-interface (rx-vlan-filter)
	networkd   string // what systemd-networkd says of the link: "configured", "unmanaged"; "" if it does not run
	networkdBy string // the .network file that it configures the link by, or ""
	manager    string // the same for NetworkManager: "connected", "connected (externally)"
}

// readFacts reads the facts of the link with that ifindex. It runs inside the host's namespace.
func readFacts(ctx context.Context, index int) (f facts, err error) {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return f, err
	}
	f = facts{name: l.Attrs().Name, mtu: l.Attrs().MTU}
	f.networkd, f.networkdBy = networkdState(index)
	if b, ok := l.(*netlink.Bond); ok {
		f.bondMode = b.Mode.String()
	}
	if m := l.Attrs().MasterIndex; m != 0 {
		master, err := netlink.LinkByIndex(m)
		if err != nil {
			return f, err
		}
		if master.Type() == "vrf" {
			f.vrf = master.Attrs().Name
		}
	}
	if f.wireless, err = isWireless(index); err != nil {
		return f, err
	}
	f.manager = networkManagerState(ctx, f.name)
	return f, f.readCard()
}

// readCard reads what ethtool shows. Many virtual links show nothing.
func (f *facts) readCard() error {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return err
	}
	defer e.Close()
	if driver, err := e.DriverName(f.name); err == nil {
		f.driver = driver
	}
	if features, err := e.Features(f.name); err == nil {
		f.vlanFilter = features["rx-vlan-filter"]
	}
	return nil
}

// Numbers of include/uapi/linux/nl80211.h.
const (
	cmdGetInterface = 5
	attrIfindex     = 3
)

// isWireless reports whether a link is a Wi-Fi card.
func isWireless(index int) (bool, error) {
	family, err := netlink.GenlFamilyGet("nl80211")
	if errors.Is(err, unix.ENOENT) {
		return false, nil // the kernel has loaded no Wi-Fi
	}
	if err != nil {
		return false, fmt.Errorf("find nl80211: %w", err)
	}
	req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_REQUEST)
	req.AddData(&nl.Genlmsg{Command: cmdGetInterface})
	req.AddData(nl.NewRtAttr(attrIfindex, nl.Uint32Attr(uint32(index))))
	_, err = req.Execute(unix.NETLINK_GENERIC, 0)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	return err == nil, err
}

// networkdState returns what systemd-networkd says of a link (networkctl(1)), and the .network file that it
// has chosen for it; "" without one.
func networkdState(index int) (state, file string) {
	// sd_network_link_get_setup_state of libsystemd reads the same file.
	text, err := os.ReadFile("/run/systemd/netif/links/" + strconv.Itoa(index))
	if err != nil {
		return "", ""
	}
	for line := range strings.Lines(string(text)) {
		switch key, value, _ := strings.Cut(strings.TrimSpace(line), "="); key {
		case "ADMIN_STATE":
			state = value
		case "NETWORK_FILE":
			file = value
		}
	}
	return state, file
}

// nmcliTimeout limits the wait for NetworkManager.
const nmcliTimeout = 3 * time.Second

// networkManagerState returns what NetworkManager says of a link, without its number: "connected".
// It returns "" if NetworkManager does not run.
func networkManagerState(ctx context.Context, name string) string {
	ctx, cancel := context.WithTimeout(ctx, nmcliTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nmcli", "--get-values", "GENERAL.STATE", "device", "show", name).Output()
	if err != nil {
		return ""
	}
	_, state, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	return strings.TrimSuffix(strings.TrimPrefix(state, "("), ")")
}
