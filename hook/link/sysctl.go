package link

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Sysctl writes a value below /proc/sys/net ("ipv6/conf/eth0/accept_ra") and returns the
// previous value. It writes in the calling thread's namespace: call it within Do.
func Sysctl(key, value string) (before string, err error) {
	f, err := openSysctl(key, os.O_RDWR)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var b [64]byte
	size, err := f.Read(b[:])
	if err == nil {
		_, err = f.WriteAt([]byte(value), 0)
	}
	if err != nil {
		return "", fmt.Errorf("set sysctl net/%s: %w", key, err)
	}
	return strings.TrimSpace(string(b[:size])), nil
}

// writeSysctl is Sysctl without the previous value. It returns nil for a missing key: the
// kernel or the interface does not have that protocol.
func writeSysctl(key, value string) error {
	f, err := openSysctl(key, os.O_WRONLY)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = f.WriteString(value); err != nil {
		return fmt.Errorf("set sysctl net/%s: %w", key, err)
	}
	return nil
}

func openSysctl(key string, flag int) (*os.File, error) {
	// Keys contain interface names, which containers choose.
	if !filepath.IsLocal(key) {
		return nil, fmt.Errorf("sysctl %s is not below net", clip(key))
	}
	f, err := os.OpenFile("/proc/sys/net/"+key, flag, 0)
	if err != nil {
		return nil, fmt.Errorf("set sysctl net/%s: %w", key, errors.Unwrap(err))
	}
	return f, nil
}
