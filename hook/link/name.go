package link

import (
	"fmt"
	"strconv"
	"strings"
)

// maxName is the maximum length of a link's name in bytes: IFNAMSIZ (linux/if.h) without
// the terminating zero.
const maxName = 15

// maxAltName is the maximum length of an alternative name in bytes: ALTIFNAMSIZ (linux/if.h)
// without the terminating zero.
const maxAltName = 127

// ValidName returns an error that says why name cannot be a link's name, or nil. Names of
// containers' interfaces come from annotations, which are untrusted, and become part of
// paths below /proc/sys.
func ValidName(name string) error { return validName(name, maxName) }

func validName(name string, longest int) error {
	switch {
	case name == "":
		return fmt.Errorf("a link's name is missing")
	case len(name) > longest:
		return fmt.Errorf("%s has %d bytes: Linux allows %d for a link's name", clip(name), len(name), longest)
	case name == "lo":
		return fmt.Errorf("%q is the loopback link, which is on no LAN: choose another", name)
	// devinet_sysctl_register in net/ipv4/devinet.c: /proc/sys/net/ipv4/conf
	// has entries of these names.
	case name == "all" || name == "default":
		return fmt.Errorf("%q has the settings of several links in /proc/sys/net: choose another name", name)
	case name == "." || name == "..":
	// The kernel replaces '%d' by a number (dev_alloc_name).
	case strings.ContainsAny(name, "/:% \t\n\v\f\r\x00"):
	default:
		return nil
	}
	return fmt.Errorf("%q cannot be a link's name", name)
}

// clip quotes untrusted text and limits its length to 80 bytes.
func clip(word string) string {
	if len(word) > 80 {
		return fmt.Sprintf("%q…", word[:80])
	}
	return fmt.Sprintf("%q", word)
}

// ParseParent splits a parent's name into the link below it and its VLAN id: "eth0.50"
// into "eth0" and 50, "eth0.100.200" into "eth0.100" and 200. For a name that does not end
// in a dot and a number without leading zeros, it returns the name and vid 0. A name that is not a
// VLAN's may be an alternative one (ip-link(8), altname).
func ParseParent(name string) (base string, vid uint16, err error) {
	if err := validName(name, maxAltName); err != nil {
		return "", 0, err
	}
	dot := strings.LastIndexByte(name, '.')
	if dot < 1 {
		return name, 0, nil
	}
	digits := name[dot+1:]
	if digits == "" || strings.Trim(digits, "0123456789") != "" || len(digits) > 1 && digits[0] == '0' {
		return name, 0, nil
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > 4094 {
		return "", 0, fmt.Errorf("%q: VLAN %s is not between 1 and 4094 (IEEE 802.1Q reserves 0 and 4095)", name, digits)
	}
	if len(name) > maxName {
		return "", 0, fmt.Errorf("%s has %d bytes: Linux allows %d for a VLAN link's name", clip(name), len(name), maxName)
	}
	return name[:dot], uint16(n), nil
}
