package link

import (
	"fmt"
	"strconv"
	"strings"
)

// IFNAMSIZ less its end, linux/if.h.
const maxName = 15

// ValidName says why name cannot be a link's name, or nil. Names of containers'
// interfaces come from annotations, which are hostile, and end up in paths
// below /proc/sys.
func ValidName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("a link's name is missing")
	case len(name) > maxName:
		return fmt.Errorf("%s has %d bytes: Linux allows %d for a link's name", clip(name), len(name), maxName)
	case name == "." || name == "..":
	// devinet_sysctl_register in net/ipv4/devinet.c: /proc/sys/net/ipv4/conf
	// has entries of these names.
	case name == "lo" || name == "all" || name == "default":
	// '%' would have the kernel number the name (dev_alloc_name).
	case strings.ContainsAny(name, "/:% \t\n\v\f\r\x00"):
	default:
		return nil
	}
	return fmt.Errorf("%q cannot be a link's name", name)
}

// clip quotes a word of which nothing is known, its length least of all.
func clip(word string) string {
	if len(word) > 80 {
		return fmt.Sprintf("%q…", word[:80])
	}
	return fmt.Sprintf("%q", word)
}

// ParseParent splits a parent's name into the link below it and its VLAN:
// "eth0.50" into "eth0" and 50, "eth0.100.200" into "eth0.100" and 200. A name
// that does not end in a dot and a number without leading zeros is a link of its
// own: base is the name and vid is 0.
func ParseParent(name string) (base string, vid uint16, err error) {
	if err := ValidName(name); err != nil {
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
		return "", 0, fmt.Errorf("%q: VLAN %s cannot be had: 1 to 4094 can (IEEE 802.1Q keeps 0 and 4095)", name, digits)
	}
	return name[:dot], uint16(n), nil
}
