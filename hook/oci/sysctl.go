package oci

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
)

// sysctlPrefix is that of the annotations for the interface's own sysctls.
const sysctlPrefix = prefix + "sysctl."

// isSysctl reports whether an annotation is for a sysctl of the interface.
func isSysctl(key string) bool { return strings.HasPrefix(key, sysctlPrefix) }

// decodeSysctls decodes the annotations for sysctls, in the order of their keys.
func decodeSysctls(ours map[string]string) (list []hook.Sysctl, err error) {
	for _, key := range slices.Sorted(maps.Keys(ours)) {
		if !isSysctl(key) {
			continue
		}
		s, err := decodeSysctl(strings.TrimPrefix(key, sysctlPrefix), ours[key])
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %w", network.Clip(key), err)
		}
		list = append(list, s)
	}
	return list, nil
}

func decodeSysctl(key, value string) (s hook.Sysctl, err error) {
	keys := hook.SysctlKeys()
	if !slices.Contains(keys, key) {
		if near := network.Nearest(key, keys); near != "" {
			return s, fmt.Errorf("cannot be requested: did you mean %q?", sysctlPrefix+near)
		}
		return s, errors.New("cannot be requested: lanyard-annotations(7) lists the sysctls, with IFNAME for the interface")
	}
	s.Key = key
	if s.Value, err = strconv.Atoi(value); err != nil {
		return s, fmt.Errorf("%s is not a number", network.Clip(value))
	}
	return s, s.Check(false)
}
