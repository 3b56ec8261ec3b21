package link

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// AcceptRouters makes an interface configure on-link routes from router advertisements, and with
// addresses also addresses (RFC 4862), in the calling thread's namespace. metric is that of the
// routers' default route: 0, it does not take it. Another one than RouterMetric needs Linux 5.12. The
// interface has IPv6 already.
//
// An address ends with the EUI-64 of the MAC, which is derived and names no hardware: so a container
// keeps its address for as long as its MAC. With a random part (RFC 8981), other stations could not
// find it. With a secret, it ends with a value of secret and prefix instead (RFC 7217). The link-local
// address ends with the EUI-64 in both cases.
func AcceptRouters(name string, metric int, addresses bool, secret *[16]byte) error {
	autoconf := 0
	if addresses {
		autoconf = 1
	}
	if metric != 0 && metric != RouterMetric {
		err := SetSysctl(name, "net.ipv6.conf.IFNAME.ra_defrtr_metric", metric)
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the default route of routers can come before another one only on Linux 5.12 or later: "+
				"omit io.lanyard.default-route: %w", err)
		}
		if err != nil {
			return err
		}
	}
	settings := []setting{{"addr_gen_mode", "0"}}
	if secret != nil {
		settings = append(settings,
			// Other stations may have the address with the MAC of an earlier interface: the kernel announces it after
			// duplicate address detection (addrconf.c, addrconf_dad_completed).
			setting{"ndisc_notify", "1"},
			// It also sets addr_gen_mode, and makes no other link-local address then.
			setting{"stable_secret", netip.AddrFrom16(*secret).String()})
	}
	settings = append(settings, []setting{
		{"use_tempaddr", "0"},
		{"router_solicitation_delay", "0"}, // also that before duplicate address detection, up to a second
		{"max_addresses", strconv.Itoa(MaxAutoconf)},
		{"autoconf", strconv.Itoa(autoconf)},
		{"accept_ra_pinfo", "1"},
		// Any station could lower the MTU to 1280, or divert a prefix from the default route.
		{"accept_ra_mtu", "0"},
		{"accept_ra_rt_info_max_plen", "0"},
		{"accept_ra_defrtr", strconv.Itoa(min(metric, 1))},
		{"accept_ra", "2"}, // last; 1 would not hold for a container that forwards
	}...)
	for _, s := range settings {
		if err := writeSysctl(fmt.Sprintf("ipv6/conf/%s/%s", name, s.key), s.value); err != nil {
			return err
		}
	}
	return nil
}

// setting is a sysctl of an interface.
type setting struct{ key, value string }

// TakesRouters reports whether an interface takes the routers' default route, in the calling thread's
// namespace. That holds also while no router gives one.
func TakesRouters(name string) (bool, error) {
	key := fmt.Sprintf("ipv6/conf/%s/accept_ra_defrtr", name)
	if !filepath.IsLocal(key) { // containers choose names
		return false, fmt.Errorf("sysctl %s is not below net", clip(key))
	}
	text, err := os.ReadFile("/proc/sys/net/" + key)
	return strings.TrimSpace(string(text)) == "1", err
}

// RouterMetric is the metric of a default route from a router, unless it has to win.
const RouterMetric = 1024 // IP6_RT_PRIO_USER

// MaxAutoconf is the number of addresses up to which the kernel configures further ones from
// advertisements: a station can advertise any number of prefixes.
const MaxAutoconf = 16

// isAutoconf reports whether the kernel has configured an address from an advertisement. The container's
// root can set the flag, too.
func isAutoconf(a netlink.Addr) bool {
	return a.Flags&unix.IFA_F_MANAGETEMPADDR != 0 && a.Flags&unix.IFA_F_PERMANENT == 0
}
