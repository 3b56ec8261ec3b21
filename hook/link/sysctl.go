package link

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// SetSysctl sets a sysctl of an interface in the calling thread's namespace. key is that of sysctl(8)
// with IFNAME for the name, such as "net.ipv4.conf.IFNAME.rp_filter". SetSysctl returns an error if
// the kernel does not have it.
func SetSysctl(ifname, key string, value int) error {
	path := strings.TrimPrefix(strings.ReplaceAll(key, ".", "/"), "net/")
	path = strings.Replace(path, "IFNAME", ifname, 1)
	if !filepath.IsLocal(path) {
		return fmt.Errorf("sysctl %s is not below net", clip(path))
	}
	if _, err := os.Lstat("/proc/sys/net/" + path); err != nil {
		return fmt.Errorf("set sysctl net/%s: the interface does not have it: %w", path, errors.Unwrap(err))
	}
	return writeSysctl(path, strconv.Itoa(value))
}

// KeyARPIgnore is the key of the sysctl that SeparateARP sets, for SetSysctl.
const KeyARPIgnore = "net.ipv4.conf.IFNAME.arp_ignore"

// SeparateARP makes an interface in the calling thread's namespace answer ARP requests for its own
// addresses only (arp_ignore 1). It keeps another value than the default, 0: the container requested it.
func SeparateARP(ifname string) error {
	key := "ipv4/conf/" + ifname + "/arp_ignore" // the kernel allows no slash in a name (dev_valid_name)
	now, err := os.ReadFile("/proc/sys/net/" + key)
	if err != nil || strings.TrimSpace(string(now)) != "0" {
		return nil // a kernel without the sysctl, or an interface that is gone, has nothing to set
	}
	return writeSysctl(key, "1")
}

// writeSysctl writes a value below /proc/sys/net ("ipv6/conf/eth0/accept_ra"), in the calling
// thread's namespace. It returns nil for a missing key: the kernel or the interface does not have
// that protocol.
func writeSysctl(key, value string) error {
	// Keys contain interface names, which containers choose.
	if !filepath.IsLocal(key) {
		return fmt.Errorf("sysctl %s is not below net", clip(key))
	}
	f, err := os.OpenFile("/proc/sys/net/"+key, os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("set sysctl net/%s: %w", key, errors.Unwrap(err))
	}
	defer f.Close()
	if _, err = f.WriteString(value); err != nil {
		return fmt.Errorf("set sysctl net/%s: %w", key, err)
	}
	return nil
}
